"""Static int8 quantization through onnxruntime's quantizer. The only module that imports it."""

from __future__ import annotations

import contextlib
import itertools
import logging
import tempfile
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from edgesdk.errors import QuantizeError
from edgesdk.model.nodes import node_facts
from edgesdk.model.save import save_model
from edgesdk.profiles.values import QuantScheme
from edgesdk.progress import OnProgress, Progress, ignore_progress
from edgesdk.quantize.scope import QUANTIZED_OPS, why_float

if TYPE_CHECKING:
    import numpy as np
    import onnx_ir as ir

__all__ = ["LeftFloat", "Quantized", "quantize"]

Sample = dict[str, "np.ndarray"]

_MOST_REASONS = 4

#: Severities of onnxruntime's own log; warnings is where it starts.
_WARNINGS, _ONLY_FATAL = 2, 4


@dataclass(frozen=True, slots=True, kw_only=True)
class LeftFloat:
    """A node that was not quantized."""

    name: str
    op: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Quantized:
    """A Q/DQ graph and what was done to get it."""

    model: ir.Model
    samples: int
    quantized_nodes: int
    quantized_weights: int
    left_float: tuple[LeftFloat, ...]


def quantize(
    model: ir.Model,
    samples: Iterable[Sample],
    *,
    scheme: QuantScheme,
    keep_float: Collection[str] = (),
    on_progress: OnProgress = ignore_progress,
) -> Quantized:
    """Quantize ``model`` with the ranges seen in ``samples``.

    Args:
        model: A float graph of opset 13 or newer (per-channel Q/DQ needs it).
        samples: Model inputs by name, each with its batch dimension.
        scheme: Data types and granularity, from the target profile.
        keep_float: Node names and operator types that stay in float.
        on_progress: Told of every sample.

    Raises:
        QuantizeError: No samples, no node to quantize, values that are not finite, or the
            quantizer failed.
    """
    reader = _Reader(samples, on_progress)
    with tempfile.TemporaryDirectory(prefix="edgesdk-quantize-") as scratch:
        source = save_model(model, Path(scratch), "float")[0]
        out = Path(scratch) / "int8.onnx"
        excluded = [n.name for n in node_facts(model) if why_float(n, keep_float) is not None]
        try:
            _run_quantizer(source, out, reader, scheme, excluded)
        except QuantizeError as exc:
            if model.graph.opset_imports.keys() & {"com.microsoft"} and exc.__cause__:
                exc.hint = "give the model from before onnxruntime optimized it; or " + exc.hint
            raise
        quantized = _load(out)
    facts = node_facts(quantized)
    done = _count_quantized(quantized)
    weights = _count_int8_weights(quantized)
    if not done:
        why = dict.fromkeys(why_float(node, keep_float) for node in node_facts(model))
        reasons = "; ".join([reason for reason in why if reason is not None][:_MOST_REASONS])
        raise QuantizeError(
            f"cannot quantize {model.graph.name or 'the model'}: no node was quantized "
            f"({reasons or 'it has none'})",
            hint="build with --precision fp32",
        )
    left = tuple(
        LeftFloat(name=node.name, op=node.op, reason=reason)
        for node in facts
        if node.op not in ("QuantizeLinear", "DequantizeLinear")
        and (reason := why_float(node, keep_float)) is not None
    )
    return Quantized(
        model=quantized,
        samples=reader.count,
        quantized_nodes=done,
        quantized_weights=weights,
        left_float=left,
    )


class _Reader:
    """Feeds samples to the quantizer and checks them on the way."""

    def __init__(self, samples: Iterable[Sample], on_progress: OnProgress) -> None:
        self._samples: Iterator[Sample] = iter(samples)
        self._on_progress = on_progress
        self.count = 0

    def get_next(self) -> Sample | None:
        """Give the next sample, or None at the end (the quantizer's protocol)."""
        import numpy as np

        sample = next(self._samples, None)
        if sample is None:
            return None
        for name, array in sample.items():
            if array.dtype.kind == "f" and not np.isfinite(array).all():
                raise QuantizeError(
                    f"cannot calibrate with sample {self.count}: input {name!r} holds NaN or "
                    "infinite values",
                    hint="look at how the sample was made",
                    sample=self.count,
                )
        self.count += 1
        self._on_progress(Progress(step="calibrate", done=self.count, unit="samples"))
        return sample

    def __iter__(self) -> Iterator[Sample]:
        return iter(self.get_next, None)

    def __next__(self) -> Sample:
        sample = self.get_next()
        if sample is None:
            raise StopIteration
        return sample


def _run_quantizer(
    source: Path, out: Path, reader: _Reader, scheme: QuantScheme, excluded: list[str]
) -> None:
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_static

    activation = scheme.activations.split("-")[0]
    weight = scheme.weights.split("-")[0]
    types = {"int8": QuantType.QInt8, "uint8": QuantType.QUInt8}
    first = reader.get_next()
    if first is None:
        raise QuantizeError(
            "cannot calibrate: there are no samples",
            hint="give some 100 typical inputs with --calib",
        )
    feed = _Chain(first, reader)
    try:
        with _quiet_logging():
            quantize_static(
                source,
                out,
                feed,
                quant_format=QuantFormat.QDQ,
                op_types_to_quantize=sorted(QUANTIZED_OPS),
                per_channel="per-channel" in scheme.weights,
                reduce_range=scheme.reduce_range,
                activation_type=types[activation],
                weight_type=types[weight],
                nodes_to_exclude=excluded,
                extra_options={
                    "ActivationSymmetric": scheme.activations.endswith("-symmetric"),
                    "WeightSymmetric": scheme.weights.endswith("-symmetric"),
                },
            )
    except QuantizeError:
        raise
    except Exception as exc:
        raise QuantizeError(
            f"cannot quantize the model: {' '.join(repr(exc).split())[:300]}",
            hint="build with --precision fp32, or keep nodes out with keep_float in a recipe",
        ) from exc


class _Chain:
    """The first sample, which was read to see that there is one, then the others."""

    def __init__(self, first: Sample, rest: _Reader) -> None:
        self._samples = itertools.chain((first,), rest)

    def get_next(self) -> Sample | None:
        """Give the next sample, or None at the end (the quantizer's protocol)."""
        return next(self._samples, None)


@contextlib.contextmanager
def _quiet_logging() -> Iterator[None]:
    """Keep the quantizer's advice, and its runtime's remarks, off the user's terminal."""
    import onnxruntime

    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    onnxruntime.set_default_logger_severity(_ONLY_FATAL)
    try:
        yield
    finally:
        logging.disable(before)
        onnxruntime.set_default_logger_severity(_WARNINGS)


def _load(path: Path) -> ir.Model:
    import onnx_ir as ir

    model = ir.load(path)
    ir.external_data.load_to_model(model)
    return model


def _count_quantized(model: ir.Model) -> int:
    """Count nodes whose data input comes out of a DequantizeLinear."""
    count = 0
    for node in model.graph:
        if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            continue
        producers = [v.producer() for v in node.inputs[:1] if v is not None]
        count += any(p is not None and p.op_type == "DequantizeLinear" for p in producers)
    return count


def _count_int8_weights(model: ir.Model) -> int:
    """Count 8-bit constants that a DequantizeLinear turns back (a bias is 32 bits)."""
    import onnx_ir as ir

    eight_bits = (ir.DataType.INT8, ir.DataType.UINT8)
    found = set()
    for node in model.graph:
        value = node.inputs[0] if node.op_type == "DequantizeLinear" else None
        constant = value.const_value if value is not None else None
        if value is not None and constant is not None and constant.dtype in eight_bits:
            found.add(value.name)
    return len(found)
