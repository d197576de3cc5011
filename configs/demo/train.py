r"""Train the demo model and write it with its data; nothing but numpy, scikit-learn and onnx.

    python configs/demo/train.py                  # about a minute on two free cores
    edgesdk deploy configs/demo/digits_cnn.onnx --calib configs/demo/calib.npz \
        --data configs/demo/test.npz

The task is scikit-learn's digits: 1797 grey pictures of 8 x 8 pixels with 17 levels each. The
network is the kind that runs on small boards, kept as a training framework exports it: a 3x3
convolution, six depthwise-separable blocks (four with a residual sum), batch normalization as
nodes of its own, ReLU6 as Clip, global average pooling, one dense layer. Its first node makes
the picture four times as large, so that there is work to do and something to gain from int8.

What is written, beside this file:

- ``digits_cnn.onnx``: input ``image`` float32 ``[N, 1, 8, 8]`` from 0 to 1, output ``logits``.
- ``calib.npz``: 100 of the pictures trained on, without labels.
- ``test.npz``: the last 500 pictures with ``labels``; training never sees them.

Pictures are stored as float16, which holds sixteenths exactly and widens to float32 unchanged.
The seed fixes initial weights, order and shifts. With the same numpy on the same processor the
model comes out byte for byte; elsewhere sums are rounded in another order, and accuracy may
differ by a picture or two. The committed files came from six epochs; in onnxruntime 1.32 the
float model reads 489 of the 500 test pictures, its int8 form (Q/DQ, per channel) 490.

One file on purpose, though it is long: it is read from top to bottom, and copied as a whole.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

Array = NDArray[np.float32]

HERE = Path(__file__).resolve().parent
SEED = 7
TEST_ROWS = 500
CALIB_ROWS = 100
ENLARGE = 4
STEM_CHANNELS = 64
#: Channels out and stride of each block; the same channels and stride 1 get a residual sum.
BLOCKS = ((128, 1), (128, 1), (128, 1), (128, 1), (128, 1), (128, 2))
CLASSES = 10
BATCH = 32
EPOCHS = 6
PEAK_RATE = 4e-3
EPSILON = 1e-5
#: Channels that one thread takes at a time, few enough to stay in its cache.
CHUNK = 8


class Parameter:
    """A weight with its gradient and Adam's two moments."""

    def __init__(self, value: NDArray[np.floating]) -> None:
        self.value = value.astype(np.float32)
        self.grad = np.zeros_like(self.value)
        self._first = np.zeros_like(self.value)
        self._second = np.zeros_like(self.value)

    def step(self, rate: float, number: int) -> None:
        """Move by one step of Adam (Kingma and Ba, 2015)."""
        self._first += 0.1 * (self.grad - self._first)
        self._second += 0.01 * (self.grad * self.grad - self._second)
        first = self._first / np.float32(1 - 0.9**number)
        second = self._second / np.float32(1 - 0.99**number)
        self.value -= np.float32(rate) * first / (np.sqrt(second) + np.float32(1e-8))


class Stem:
    """Full 3x3 convolution of one channel, stride 2, as a product with gathered windows."""

    def __init__(self, channels: int, rng: np.random.Generator) -> None:
        self.weight = Parameter(rng.normal(size=(channels, 9)) * np.sqrt(2 / 9))

    def forward(self, image: Array) -> Array:
        """Turn ``[N, H, W]`` into ``[C, N, H/2, W/2]``."""
        padded = np.pad(image, ((0, 0), (1, 1), (1, 1)))
        windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(1, 2))
        self._columns = np.ascontiguousarray(windows[:, ::2, ::2]).reshape(-1, 9)
        count, height, width = image.shape
        result = self.weight.value @ self._columns.T
        return result.reshape(-1, count, height // 2, width // 2)

    def backward(self, grad: Array) -> None:
        """Keep the weight's gradient; the picture needs none."""
        self.weight.grad = grad.reshape(len(grad), -1) @ self._columns


class Depthwise:
    """3x3 convolution of each channel by itself.

    A row of the picture times a banded matrix gives the sums along the row for each row of the
    kernel, so that the work is matrix products; three results, a row apart, are then added.
    """

    def __init__(self, channels: int, stride: int, rng: np.random.Generator) -> None:
        self.weight = Parameter(rng.normal(size=(channels, 9)) * np.sqrt(2 / 9))
        self.stride = stride

    def forward(self, image: Array) -> Array:
        """Turn ``[C, N, H, W]`` into ``[C, N, H/stride, W/stride]``."""
        self._image = image
        channels, count, height, width = image.shape
        above, across = height // self.stride, width // self.stride
        self._bands = _bands(self.weight.value, width, self.stride)
        result = np.empty((channels, count, above, across), np.float32)

        def work(part: slice) -> None:
            padded = np.pad(image[part], ((0, 0), (0, 0), (1, 1), (0, 0)))
            rows = padded.reshape(len(padded), -1, width) @ self._bands[part]
            taps = rows.reshape(len(padded), count, height + 2, 3, across)
            result[part] = sum(taps[:, :, self._rows(tap, height), tap] for tap in range(3))

        _in_parts(work, channels)
        return result

    def backward(self, grad: Array) -> Array:
        """Keep the weight's gradient, give the picture's."""
        channels, count, height, width = self._image.shape
        across = width // self.stride
        self.weight.grad = np.zeros((channels, 9), np.float32)
        back = np.empty_like(self._image)

        def work(part: slice) -> None:
            padded = np.pad(self._image[part], ((0, 0), (0, 0), (1, 1), (0, 0)))
            some = len(padded)
            taps = np.zeros((some, count, height + 2, 3, across), np.float32)
            for tap in range(3):
                taps[:, :, self._rows(tap, height), tap] = grad[part]
            flat = taps.reshape(some, -1, 3 * across)
            rows = flat @ self._bands[part].transpose(0, 2, 1)
            back[part] = rows.reshape(some, count, height + 2, width)[:, :, 1:-1]
            bands = padded.reshape(some, -1, width).transpose(0, 2, 1) @ flat
            bands = bands.reshape(some, width, 3, across)
            for tap in range(3):
                places = np.arange(across) * self.stride + tap - 1
                inside = (places >= 0) & (places < width)
                along = bands[:, places[inside], :, np.arange(across)[inside]].sum(axis=0)
                self.weight.grad[part, tap::3] = along

        _in_parts(work, channels)
        return back

    def _rows(self, tap: int, height: int) -> slice:
        return slice(tap, tap + height, self.stride)


class Pointwise:
    """1x1 convolution: one matrix product."""

    def __init__(self, before: int, after: int, rng: np.random.Generator) -> None:
        self.weight = Parameter(rng.normal(size=(after, before)) * np.sqrt(2 / before))

    def forward(self, image: Array) -> Array:
        """Mix the channels of ``[C, N, H, W]``."""
        self._image = image
        return (self.weight.value @ image.reshape(len(image), -1)).reshape(-1, *image.shape[1:])

    def backward(self, grad: Array) -> Array:
        """Keep the weight's gradient, give the picture's."""
        flat = grad.reshape(len(grad), -1)
        self.weight.grad = flat @ self._image.reshape(len(self._image), -1).T
        return (self.weight.value.T @ flat).reshape(self._image.shape)


class Norm:
    """Batch normalization, with ReLU6 after it unless it ends a residual block."""

    def __init__(self, channels: int, *, clipped: bool) -> None:
        self.gain = Parameter(np.ones(channels))
        self.shift = Parameter(np.zeros(channels))
        self.mean = np.zeros(channels, np.float32)
        self.variance = np.ones(channels, np.float32)
        self.clipped = clipped

    def forward(self, image: Array, *, training: bool) -> Array:
        """Normalize each channel over batch and place; remember averages for inference."""
        result, self._normal = np.empty_like(image), np.empty_like(image)
        self._inverse = np.empty((len(image), 1), np.float32)

        def work(part: slice) -> None:
            flat = image[part].reshape(len(image[part]), -1)
            mean, variance = self.mean[part], self.variance[part]
            if training:
                mean, variance = flat.mean(axis=1), flat.var(axis=1)
                self.mean[part] += np.float32(0.1) * (mean - self.mean[part])
                self.variance[part] += np.float32(0.1) * (variance - self.variance[part])
            inverse = 1 / np.sqrt(variance[:, np.newaxis] + np.float32(EPSILON))
            normal = (flat - mean[:, np.newaxis]) * inverse
            made = normal * self.gain.value[part, np.newaxis]
            made += self.shift.value[part, np.newaxis]
            if self.clipped:
                np.clip(made, 0, 6, out=made)
            self._inverse[part] = inverse
            self._normal[part] = normal.reshape(image[part].shape)
            result[part] = made.reshape(image[part].shape)

        _in_parts(work, len(image))
        self._result = result
        return result

    def backward(self, grad: Array) -> Array:
        """Keep the gradients of gain and shift, give the picture's."""
        back = np.empty_like(self._result)
        self.gain.grad, self.shift.grad = (np.empty(len(back), np.float32) for _ in range(2))

        def work(part: slice) -> None:
            some = grad[part]
            if self.clipped:
                some = some * ((self._result[part] > 0) & (self._result[part] < 6))
            flat = some.reshape(len(some), -1)
            normal = self._normal[part].reshape(flat.shape)
            self.shift.grad[part] = flat.sum(axis=1)
            self.gain.grad[part] = np.einsum("ci,ci->c", flat, normal)
            count = np.float32(flat.shape[1])
            inner = flat - normal * (self.gain.grad[part, np.newaxis] / count)
            inner -= self.shift.grad[part, np.newaxis] / count
            inner *= self.gain.value[part, np.newaxis] * self._inverse[part]
            back[part] = inner.reshape(some.shape)

        _in_parts(work, len(back))
        return back


class Network:
    """The whole network; its layers are read by `to_onnx`."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.stem = Stem(STEM_CHANNELS, rng)
        self.stem_norm = Norm(STEM_CHANNELS, clipped=True)
        self.blocks: list[tuple[Depthwise, Norm, Pointwise, Norm, bool]] = []
        channels = STEM_CHANNELS
        for after, stride in BLOCKS:
            residual = after == channels and stride == 1
            self.blocks.append(
                (
                    Depthwise(channels, stride, rng),
                    Norm(channels, clipped=True),
                    Pointwise(channels, after, rng),
                    Norm(after, clipped=not residual),
                    residual,
                )
            )
            channels = after
        self.dense = Parameter(rng.normal(size=(channels, CLASSES)) * np.sqrt(1 / channels))
        self.bias = Parameter(np.zeros(CLASSES))

    @property
    def parameters(self) -> list[Parameter]:
        """Everything that is trained."""
        found = [self.stem.weight, self.stem_norm.gain, self.stem_norm.shift]
        for deep, inner, point, outer, _ in self.blocks:
            found += [deep.weight, inner.gain, inner.shift]
            found += [point.weight, outer.gain, outer.shift]
        return [*found, self.dense, self.bias]

    def forward(self, image: Array, *, training: bool = False) -> Array:
        """Give the logits ``[N, 10]`` of pictures ``[N, 8, 8]``."""
        value = self.stem.forward(enlarge(image))
        value = self.stem_norm.forward(value, training=training)
        for deep, inner, point, outer, residual in self.blocks:
            middle = inner.forward(deep.forward(value), training=training)
            made = outer.forward(point.forward(middle), training=training)
            value = value + made if residual else made
        self._places = value.shape
        self._pooled = value.mean(axis=(2, 3)).T
        logits: Array = self._pooled @ self.dense.value + self.bias.value
        return logits

    def backward(self, grad: Array) -> None:
        """Fill every gradient from that of the logits."""
        self.dense.grad = self._pooled.T @ grad
        self.bias.grad = grad.sum(axis=0)
        pooled = grad @ self.dense.value.T / np.float32(self._places[2] * self._places[3])
        value = np.broadcast_to(pooled.T[:, :, np.newaxis, np.newaxis], self._places)
        for deep, inner, point, outer, residual in reversed(self.blocks):
            made = deep.backward(inner.backward(point.backward(outer.backward(value))))
            value = value + made if residual else made
        self.stem.backward(self.stem_norm.backward(value))


def enlarge(image: Array) -> Array:
    """Resize ``[N, 8, 8]`` bilinearly as ONNX Resize does (half pixel, edges held)."""
    side = image.shape[1]
    place = (np.arange(side * ENLARGE) + 0.5) / ENLARGE - 0.5
    left = np.floor(place).astype(int)
    matrix = np.zeros((side * ENLARGE, side))
    for row, (start, part) in enumerate(zip(left, place - left, strict=True)):
        matrix[row, max(start, 0)] += 1 - part
        matrix[row, min(start + 1, side - 1)] += part
    upper: Array = matrix.astype(np.float32)
    return (upper @ image @ upper.T).astype(np.float32)


def train(images: Array, labels: NDArray[np.int64], *, epochs: int) -> Network:
    """Train with Adam, one warm-up and one cosine, on pictures shifted by up to a pixel."""
    rng = np.random.default_rng(SEED)
    network = Network(rng)
    steps = epochs * (len(images) // BATCH)
    number = 0
    for epoch in range(epochs):
        started, losses = time.perf_counter(), []
        order = rng.permutation(len(images))
        for start in range(0, len(order) - BATCH + 1, BATCH):
            chosen = order[start : start + BATCH]
            logits = network.forward(shifted(images[chosen], rng), training=True)
            odds = np.exp(logits - logits.max(axis=1, keepdims=True))
            odds /= odds.sum(axis=1, keepdims=True)
            losses.append(-np.log(odds[np.arange(BATCH), labels[chosen]] + 1e-9).mean())
            odds[np.arange(BATCH), labels[chosen]] -= 1
            network.backward(odds / np.float32(BATCH))
            number += 1
            rate = PEAK_RATE * min(number / 20, 0.5 + 0.5 * np.cos(np.pi * number / steps))
            for parameter in network.parameters:
                parameter.step(rate, number)
        seconds = time.perf_counter() - started
        print(
            f"epoch {epoch + 1}/{epochs}: loss {np.mean(losses):.4f}, {seconds:.1f} s",
            flush=True,
        )
    return network


def shifted(images: Array, rng: np.random.Generator) -> Array:
    """Move each picture by -1, 0 or 1 pixel both ways; what comes in is black."""
    padded = np.pad(images, ((0, 0), (1, 1), (1, 1)))
    moves = rng.integers(0, 3, size=(len(images), 2))
    side = images.shape[1]
    return np.stack(
        [
            picture[top : top + side, left : left + side]
            for picture, (top, left) in zip(padded, moves, strict=True)
        ]
    )


class Graph:
    """Nodes and weights of an ONNX graph, collected one layer at a time."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []

    def weight(self, name: str, value: NDArray[Any]) -> str:
        """Add a weight and give its name."""
        array = np.ascontiguousarray(value, dtype=np.float32).reshape(value.shape)
        self.weights.append(numpy_helper.from_array(array, name))
        return name

    def node(self, op: str, name: str, inputs: list[str], **attributes: Any) -> str:
        """Add a node with one output and give the output's name."""
        self.nodes.append(helper.make_node(op, inputs, [name], name=name, **attributes))
        return name

    def layer(
        self,
        name: str,
        source: str,
        kernel: Array,
        norm: Norm,
        *,
        stride: int = 1,
        group: int = 1,
    ) -> str:
        """Add a convolution, its normalization and, if it has one, its ReLU6."""
        side = kernel.shape[2]
        made = self.node(
            "Conv",
            f"{name}.conv",
            [source, self.weight(f"{name}.weight", kernel)],
            kernel_shape=[side, side],
            strides=[stride, stride],
            pads=[side // 2] * 4,
            group=group,
        )
        inputs = [
            made,
            self.weight(f"{name}.scale", norm.gain.value),
            self.weight(f"{name}.bias", norm.shift.value),
            self.weight(f"{name}.mean", norm.mean),
            self.weight(f"{name}.variance", norm.variance),
        ]
        made = self.node("BatchNormalization", f"{name}.norm", inputs, epsilon=EPSILON)
        return (
            self.node("Clip", f"{name}.relu6", [made, "zero", "six"]) if norm.clipped else made
        )


def to_onnx(network: Network) -> onnx.ModelProto:
    """Write the network as a training framework would: nothing folded, names of layers."""
    graph = Graph()
    graph.weight("zero", np.array(0))
    graph.weight("six", np.array(6))
    scales = graph.weight("scales", np.array([1, 1, ENLARGE, ENLARGE]))
    value = graph.node("Resize", "enlarge", ["image", "", scales], mode="linear")
    kernel = network.stem.weight.value.reshape(-1, 1, 3, 3)
    value = graph.layer("stem", value, kernel, network.stem_norm, stride=2)
    for number, (deep, inner, point, outer, residual) in enumerate(network.blocks, 1):
        name = f"block{number}"
        kernel = deep.weight.value.reshape(-1, 1, 3, 3)
        middle = graph.layer(
            f"{name}.depthwise", value, kernel, inner, stride=deep.stride, group=len(kernel)
        )
        kernel = point.weight.value[:, :, np.newaxis, np.newaxis]
        made = graph.layer(f"{name}.pointwise", middle, kernel, outer)
        value = graph.node("Add", f"{name}.sum", [value, made]) if residual else made
    value = graph.node("Flatten", "flat", [graph.node("GlobalAveragePool", "pool", [value])])
    weight = graph.weight("dense.weight", network.dense.value)
    graph.node(
        "Gemm", "logits", [value, weight, graph.weight("dense.bias", network.bias.value)]
    )
    model = helper.make_model(
        helper.make_graph(
            graph.nodes,
            "digits_cnn",
            [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["N", 1, 8, 8])],
            [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", CLASSES])],
            graph.weights,
        ),
        producer_name="edgesdk-demo",
        opset_imports=[helper.make_opsetid("", 17)],
        ir_version=8,
    )
    onnx.checker.check_model(model, full_check=True)
    return model


def main() -> None:
    """Train, say how good it is on pictures it never saw, and write model and data."""
    parser = argparse.ArgumentParser(
        description="Train the demo model and write it with its data"
    )
    parser.add_argument("-o", "--out", type=Path, default=HERE, help="folder to write to")
    parser.add_argument("--epochs", type=int, default=EPOCHS)
    options = parser.parse_args()

    from sklearn.datasets import load_digits

    digits = load_digits()
    images = (digits.images / 16).astype(np.float32)
    labels = digits.target.astype(np.int64)
    split = len(images) - TEST_ROWS
    network = train(images[:split], labels[:split], epochs=options.epochs)
    logits = np.concatenate([network.forward(part) for part in np.split(images[split:], 10)])
    hits = int((logits.argmax(axis=1) == labels[split:]).sum())
    print(f"top-1 on the {TEST_ROWS} test pictures: {hits / TEST_ROWS:.3f}")

    options.out.mkdir(parents=True, exist_ok=True)
    onnx.save(to_onnx(network), options.out / "digits_cnn.onnx")
    small = images[:, np.newaxis].astype(np.float16)
    chosen = np.random.default_rng(SEED).choice(split, CALIB_ROWS, replace=False)
    np.savez_compressed(options.out / "calib.npz", image=small[np.sort(chosen)])
    np.savez_compressed(
        options.out / "test.npz", image=small[split:], labels=labels[split:].astype(np.uint8)
    )


def _bands(weight: Array, width: int, stride: int) -> Array:
    """Give ``[C, W, 3 * W/stride]``: for each row of the kernel, its taps at every place."""
    across = width // stride
    bands = np.zeros((len(weight), width, 3, across), np.float32)
    for tap in range(3):
        places = np.arange(across) * stride + tap - 1
        inside = (places >= 0) & (places < width)
        bands[:, places[inside], :, np.arange(across)[inside]] = weight[:, tap::3]
    return bands.reshape(len(weight), width, 3 * across)


def _in_parts(work: Callable[[slice], None], channels: int) -> None:
    """Run ``work`` on slices of the channels in two threads; numpy lets both run at once."""
    parts = [slice(start, min(start + CHUNK, channels)) for start in range(0, channels, CHUNK)]
    list(_THREADS.map(work, parts))


_THREADS = ThreadPoolExecutor(2)


if __name__ == "__main__":
    main()
