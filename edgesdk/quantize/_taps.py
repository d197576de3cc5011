"""Inner tensors of a float graph, sample by sample, through onnxruntime."""

from __future__ import annotations

import tempfile
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgesdk.errors import QuantizeError
from edgesdk.model.save import save_model

if TYPE_CHECKING:
    import numpy as np
    import onnx_ir as ir

__all__ = ["Sample", "Tap"]

Sample = dict[str, "np.ndarray"]

_ONLY_FATAL = 4
_MOST_TOGETHER = 8
#: Tensors of samples that run together take at most this much.
_TOGETHER_BYTES = 64 << 20
#: How far, of the largest value, a sample's tensors may move when others run beside it.
_SAME = 1e-3


class Tap:
    """A session of a copy of ``model`` that gives the ``wanted`` tensors of its top level.

    Samples run together where the model's first axis is open; the first such run is compared
    with one alone, because an open axis may be one that samples mix along.
    """

    def __init__(self, model: ir.Model, wanted: Collection[str]) -> None:
        inputs = {value.name for value in model.graph.inputs}
        self._fed = sorted(set(wanted) & inputs)
        self._wanted = sorted(set(wanted) - inputs)
        self._session = _open(model, self._wanted)
        self._most = _MOST_TOGETHER if _is_open(model) else 1
        self._trusted = False

    def stream(self, samples: Iterable[Sample]) -> Iterator[Sample]:
        """Give the wanted tensors of each sample, in order.

        Raises:
            QuantizeError: The model does not run on a sample.
        """
        waiting: list[Sample] = []
        most = 0
        for sample in samples:
            if not most:
                values = self._run(sample)
                held = sum(array.nbytes for array in values.values())
                most = max(min(self._most, _TOGETHER_BYTES // max(held, 1)), 1)
                yield values
                continue
            if waiting and not _alike(waiting[-1], sample):
                yield from self._together(waiting)
                waiting = []
            waiting.append(sample)
            if len(waiting) >= min(most, self._most):
                yield from self._together(waiting)
                waiting = []
        yield from self._together(waiting)

    def _together(self, samples: list[Sample]) -> Iterator[Sample]:
        if len(samples) > 1 and (values := self._run_joined(samples)) is not None:
            yield from values
        else:
            yield from map(self._run, samples)

    def _run_joined(self, samples: list[Sample]) -> list[Sample] | None:
        import numpy as np

        joined = {name: np.concatenate([s[name] for s in samples]) for name in samples[0]}
        try:
            values = self._run(joined)
        except QuantizeError:
            self._most = 1
            return None
        count = len(samples)
        if any(array.ndim == 0 or len(array) % count for array in values.values()):
            self._most = 1
            return None
        parts = {name: np.split(array, count) for name, array in values.items()}
        split = [{name: part[at] for name, part in parts.items()} for at in range(count)]
        if not self._trusted and not _near(self._run(samples[-1]), split[-1]):
            self._most = 1
            return None
        self._trusted = True
        return split

    def _run(self, sample: Sample) -> Sample:
        values: dict[str, Any] = {name: sample[name] for name in self._fed if name in sample}
        if not self._wanted and len(values) == len(self._fed):
            return values
        try:
            given = self._session.run(self._wanted, sample)
        except Exception as exc:
            raise QuantizeError(
                f"cannot run the model on a sample: {' '.join(str(exc).split())[:300]}",
                hint="samples hold every model input by name, with its batch dimension",
            ) from exc
        return values | dict(zip(self._wanted, given, strict=True))


def _open(model: ir.Model, wanted: list[str]) -> Any:
    import onnxruntime

    copy = model.clone()
    given = {value.name for value in copy.graph.outputs}
    for node in copy.graph:
        copy.graph.outputs.extend(
            value for value in node.outputs if value.name in wanted and value.name not in given
        )
    options = onnxruntime.SessionOptions()
    options.log_severity_level = _ONLY_FATAL
    # its threads wait busily otherwise, on the cores that the sums need
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    with tempfile.TemporaryDirectory(prefix="edgesdk-moments-") as folder:
        path = save_model(copy, Path(folder), "tapped")[0]
        try:
            return onnxruntime.InferenceSession(
                path, options, providers=["CPUExecutionProvider"]
            )
        except Exception as exc:
            raise QuantizeError(
                f"cannot run the model: {' '.join(str(exc).split())[:300]}",
                hint="build with --precision fp32",
            ) from exc


def _is_open(model: ir.Model) -> bool:
    shapes = [value.shape for value in model.graph.inputs if not value.is_initializer()]
    return bool(shapes) and all(
        shape is not None and len(shape) > 0 and not isinstance(shape[0], int)
        for shape in shapes
    )


def _alike(one: Sample, other: Sample) -> bool:
    return one.keys() == other.keys() and all(
        array.shape == other[name].shape and array.dtype == other[name].dtype
        for name, array in one.items()
    )


def _near(one: Sample, other: Sample) -> bool:
    import numpy as np

    for name, array in one.items():
        if array.shape != other[name].shape:
            return False
        largest = float(np.abs(array).max(initial=0.0))
        if not np.allclose(array, other[name], rtol=_SAME, atol=_SAME * largest):
            return False
    return True
