"""What is asked of operators with a window or with weights."""

from __future__ import annotations

from edgesdk.backends.ethos_u.asked import Asked, Check
from edgesdk.model.tflite_graph import TfliteTensor

__all__ = ["WINDOWS", "transposed_window"]


def _strides(asked: Asked) -> str | None:
    most = asked.limits.most_stride
    if most is None or "stride_h" not in asked.op.options:
        return None
    strides = asked.pair("stride")
    if max(strides) <= most:
        return None
    is_dense = max(asked.pair("dilation")) == 1
    if asked.limits.far_strides and is_dense and _is_inside(asked, strides):
        return None
    where = " over the edge or with gaps" if asked.limits.far_strides else ""
    return f"steps of {strides[0]} x {strides[1]}{where}, past {most}"


def _is_inside(asked: Asked, strides: tuple[int, int]) -> bool:
    """Say whether a dense window never lies over the edge."""
    if asked.op.options.get("padding") == "VALID":
        return True
    taken, given = asked.input(0), next(asked.results(), None)
    kernel = asked.input(asked.limits.weights)
    if taken is None or given is None or len(taken.shape) != 4 or len(given.shape) != 4:
        return False
    sides = asked.pair("filter") if kernel is None else kernel.shape[1:3]
    spans = [
        (made - 1) * stride + side - extent
        for made, stride, side, extent in zip(
            given.shape[1:3], strides, sides, taken.shape[1:3], strict=False
        )
    ]
    return max(spans, default=1) <= 0


def _kernel(asked: Asked) -> str | None:
    limits = asked.limits
    if "filter_h" not in asked.op.options:
        return None
    height, width = asked.pair("filter")
    said = f"a window of {height} x {width}"
    if asked.op.options.get("padding") == "SAME" and limits.most_padded_side is not None:
        too_large = max(height, width) > limits.most_padded_side
        return f"{said} over the edge, past {limits.most_padded_side}" if too_large else None
    if limits.most_kernel_height is not None and height > limits.most_kernel_height:
        return f"{said}, higher than {limits.most_kernel_height}"
    if limits.most_kernel_area is not None and height * width > limits.most_kernel_area:
        return f"{said}, past {limits.most_kernel_area} elements"
    return None


def _weights(asked: Asked) -> str | None:
    weights, main, limits = asked.input(asked.limits.weights), asked.main(), asked.limits
    if weights is None or main is None:
        return None
    if weights.constant is None:
        return _open_weights(asked, weights, main)
    if limits.weight_types and weights.dtype not in limits.weight_types:
        return f"weights of {weights.dtype}"
    return None


def _open_weights(asked: Asked, weights: TfliteTensor, main: TfliteTensor) -> str | None:
    limits = asked.limits
    if not limits.open_types:
        return "its weights are not known when it is compiled"
    if main.dtype not in limits.open_types or weights.dtype not in limits.open_types:
        return f"weights of {weights.dtype} that are known only when it runs, on {main.dtype}"
    most = limits.most_open_extent
    deepest = max(
        main.shape[-1:] + tuple(one.shape[-1] for one in asked.results() if one.shape)
    )
    if most is not None and deepest > most:
        return f"an extent of {deepest}, past {most}"
    return None


def _weight_sum(asked: Asked) -> str | None:
    import numpy as np

    weights, main = asked.input(asked.limits.weights), asked.main()
    if weights is None or main is None or weights.constant is None:
        return None
    most = asked.limits.most_weight_sum.get(main.dtype)
    array = asked.graph.array(weights.index)
    if most is None or array is None or array.ndim < 2 or array.dtype.itemsize != 1:
        return None
    # a grid has a zero point for all results, or one for each
    axis = array.ndim - 1 if asked.op.name == _DEPTHWISE else 0
    zeros = np.asarray(weights.zero_points or (0,), np.int64)
    if zeros.size > 1:
        shape = [1] * array.ndim
        shape[axis] = zeros.size
        if zeros.size != array.shape[axis]:
            return None
        zeros = zeros.reshape(shape)
    others = tuple(other for other in range(array.ndim) if other != axis)
    largest = int(np.abs(array.astype(np.int64) - zeros).sum(axis=others).max(initial=0))
    return f"weights sum up to {largest}, past {most}" if largest > most else None


_DEPTHWISE = "DEPTHWISE_CONV_2D"


def _bias(asked: Asked) -> str | None:
    bias, limits = asked.input(asked.limits.bias), asked.limits
    if bias is None:
        return None
    if bias.constant is None:
        return "its bias is not known when it is compiled"
    if limits.bias_types and bias.dtype not in limits.bias_types:
        return f"a bias of {bias.dtype}"
    if any(extent > 1 for extent in bias.shape[:-1]):
        return f"a bias of shape {list(bias.shape)}"
    array = asked.graph.array(bias.index)
    if limits.most_bias is None or array is None or bias.dtype != "int64":
        return None
    largest = int(array.max(initial=0))
    return (
        f"a bias of {largest}, past {limits.most_bias}" if largest > limits.most_bias else None
    )


def transposed_window(asked: Asked) -> str | None:
    """Refuse a transposed convolution that does not grow by its steps."""
    taken, kernel = asked.input(2), asked.input(1)
    given = next(asked.results(), None)
    if taken is None or kernel is None or given is None:
        return None
    if len(taken.shape) != 4 or len(kernel.shape) != 4 or len(given.shape) != 4:
        return f"shapes {list(taken.shape)}, {list(kernel.shape)}"
    strides = asked.pair("stride")
    for axis, stride in zip((1, 2), strides, strict=True):
        wanted = taken.shape[axis] * stride
        if asked.op.options.get("padding") == "VALID":
            wanted += max(kernel.shape[axis] - stride, 0)
        if given.shape[axis] != wanted:
            return f"an extent of {taken.shape[axis]} becomes {given.shape[axis]}, not {wanted}"
    return None


WINDOWS: tuple[Check, ...] = (_strides, _kernel, _weights, _weight_sum, _bias)
