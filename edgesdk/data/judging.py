"""Which metrics go with labels and outputs, and measuring them.

Names that may be asked for are `METRICS` and ``module:function``, a function of the user's own.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from edgesdk.data.functions import import_function, is_function_spec, users_errors
from edgesdk.data.labelled import (
    MANY_CLASSES,
    goes_with,
    is_column,
    is_map,
    is_matrix,
    measure_output,
    refuse_nan,
)
from edgesdk.data.measures import Measure, ResampledMeasure
from edgesdk.errors import DataError
from edgesdk.near import suggest

if TYPE_CHECKING:
    import numpy as np

__all__ = ["METRICS", "Judge", "Reduction", "SampleOutputs", "plan_reduction", "read_metric"]

#: Each with what it needs.
METRICS = {
    "top1": "class numbers as labels, and an output [N, classes] or of class numbers",
    "top5": "class numbers as labels, and an output [N, classes] of 5 classes at least",
    "pixel-top1": "a class number for each place, and an output [N, classes, ...]",
    "auc": "class numbers as labels, and an output [N, classes], or [N] for two classes",
    "map": "boxes as labels [N, M, 5], and outputs with boxes, scores and classes",
    "mae": "labels of the shape of an output",
    "rmse": "labels of the shape of an output",
}
#: A user's metric is called once for each draw.
_USER_DRAWS = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Reduction:
    """What of the outputs is enough: of ``outputs``, the places of the ``top`` largest."""

    outputs: tuple[str, ...] | None = None
    top: int = 0


def read_metric(text: str) -> str:
    """Read one name of a metric, written ``top1`` or ``top-1``.

    Raises:
        DataError: There is none of that name.
    """
    if is_function_spec(text):
        return text
    plain = text.strip().lower()
    for name in METRICS:
        if plain.replace("-", "") == name.replace("-", ""):
            return name
    raise DataError(
        f"cannot measure {text!r}: there is no such metric (there are {', '.join(METRICS)} and "
        "module:function)",
        hint=suggest(plain, list(METRICS)),
        metric=text,
    )


def plan_reduction(
    metrics: Sequence[str], labels: np.ndarray, outputs: Sequence[Mapping[str, Any]]
) -> Reduction:
    """Say what a device needs to send for some metrics: all, or only the best places.

    Args:
        metrics: As `Judge` takes them.
        labels: One entry per row.
        outputs: What the model gives: ``name``, ``dtype``, ``shape``.
    """
    whole = labels.dtype.kind in "bui" and labels.ndim == 1
    if not whole or not set(metrics) <= {"top1", "top5"}:
        return Reduction()
    for value in outputs:
        shape = value["shape"]
        classes = shape[1] if len(shape) == 2 else None
        if not str(value["dtype"]).startswith("float") or type(classes) is not int:
            return Reduction()  # the first output that goes with labels may be this one
        many = classes > MANY_CLASSES
        top = MANY_CLASSES if many and (not metrics or "top5" in metrics) else 1
        if classes >= 2 * top:
            return Reduction(outputs=(str(value["name"]),), top=top)
        return Reduction()
    return Reduction()


class SampleOutputs(Protocol):
    """What a model gave for samples: see `edgesdk.bench.outputs.Outputs`.

    ``done`` counts samples, ``batch`` the rows in one, ``reduced`` names the outputs that are
    places of the largest values, best first.
    """

    @property
    def done(self) -> int:
        """How many samples there are."""

    @property
    def batch(self) -> int:
        """How many rows one sample has."""

    reduced: frozenset[str]

    def joined(self) -> dict[str, np.ndarray]:
        """Outputs that keep their shape, rows first."""

    def by_sample(self) -> dict[str, list[np.ndarray]]:
        """All outputs, one array per sample."""


@dataclass(slots=True, kw_only=True)
class Judge:
    """Measures metrics on outputs for one set of labels.

    Attributes:
        labels: One entry per row.
        metrics: Names as `read_metric` gives them; empty for what goes with the labels.
        roles: Which output of a detector is what, where its name does not tell.
        spec: Where the labels come from, for messages.
    """

    labels: np.ndarray
    metrics: tuple[str, ...] = ()
    roles: Mapping[str, str] = field(default_factory=dict)
    spec: str = "the data"

    def measure(self, outputs: SampleOutputs) -> tuple[Measure, ...]:
        """Measure every metric on the outputs of the first samples, or of all.

        Raises:
            DataError: A metric does not go with the labels and outputs, or outputs are NaN.
        """
        labels = self.labels[: outputs.done * outputs.batch]
        joined = outputs.joined()
        if self.labels.ndim == 3 or "map" in self.metrics:
            by_sample = outputs.by_sample()
        else:
            by_sample = {}
        found: list[Measure] = []
        for name in self.metrics or self._fitting(joined, by_sample, labels):
            if is_function_spec(name):
                found.append(_of_user(name, joined, labels))
            elif name == "map":
                found += _of_detector(by_sample, labels, self.roles, outputs.batch)
            else:
                found.append(self._of_output(name, joined, labels, outputs.reduced))
        return tuple(found)

    def _fitting(
        self,
        joined: Mapping[str, np.ndarray],
        by_sample: Mapping[str, Sequence[np.ndarray]],
        labels: np.ndarray,
    ) -> tuple[str, ...]:
        """Name the metrics that go with labels nobody named one for."""
        for output in joined.values():
            if is_matrix(output, labels):
                many = output.shape[1] > MANY_CLASSES
                return ("top1", "top5") if many else ("top1",)
            if is_column(output, labels) and labels.dtype.kind in "bui":
                plain = output.dtype.kind in "iu" or len(set(labels.tolist())) != 2
                return ("top1",) if plain else ("top1", "auc")
            if is_map(output, labels):
                return ("pixel-top1",)
        if labels.ndim == 3 and labels.shape[2] == 5 and len(by_sample) > 1:
            return ("map",)
        return ("mae", "rmse")

    def _of_output(
        self,
        name: str,
        joined: Mapping[str, np.ndarray],
        labels: np.ndarray,
        reduced: frozenset[str],
    ) -> Measure:
        for output_name, output in joined.items():
            is_places = output_name in reduced
            if goes_with(name, output, labels, is_places=is_places):
                refuse_nan(output_name, output, name, is_places=is_places)
                return measure_output(name, output, labels, is_places=is_places)
        shapes = ", ".join(f"{n!r} {o.dtype}{list(o.shape)}" for n, o in joined.items())
        raise DataError(
            f"cannot measure {name} on {self.spec}: labels are {labels.dtype}"
            f"{list(labels.shape)} and the outputs are {shapes or 'none'}",
            hint=f"it needs {METRICS[name]}",
            metric=name,
        )


def _of_detector(
    by_sample: Mapping[str, Sequence[np.ndarray]],
    labels: np.ndarray,
    roles: Mapping[str, str],
    batch: int,
) -> tuple[Measure, ...]:
    from edgesdk.data.detection import find_roles, measure_map, read_detections

    found = read_detections(by_sample, find_roles(list(by_sample), roles), batch=batch)
    return measure_map(found, labels)


def _of_user(spec: str, joined: Mapping[str, np.ndarray], labels: np.ndarray) -> Measure:
    """Call a function of the user's: ``function(outputs, labels)`` gives a number.

    ``outputs`` are arrays by name, rows first, in the order of ``labels``. Where the function
    has an attribute ``smaller_is_better`` that is true, so it is.
    """
    import numpy as np

    function = import_function(spec, "measure")
    rows = len(labels)
    usable = {name: array for name, array in joined.items() if array.shape[:1] == (rows,)}

    def call(chosen: np.ndarray) -> float:
        with users_errors(f"measure {spec}"):
            value = function({n: a[chosen] for n, a in usable.items()}, labels[chosen])
        try:
            return float(value)
        except (TypeError, ValueError) as exc:
            raise DataError(
                f"cannot measure {spec}: it gave {str(value)[:80]!r} (expected a number)",
                hint="it takes (outputs, labels): arrays by name, and an array",
            ) from exc

    def statistic(weights: np.ndarray) -> float:
        if weights.max() == 1 == weights.min():
            return call(np.arange(rows))
        try:
            return call(np.repeat(np.arange(rows), weights))
        except DataError:  # a draw without some class, say: it does not count
            return math.nan

    smaller = bool(getattr(function, "smaller_is_better", False))
    measure = ResampledMeasure(
        spec, "smaller" if smaller else "larger", statistic, rows, draws=_USER_DRAWS
    )
    if not math.isfinite(measure.value):
        raise DataError(
            f"cannot measure {spec}: it gave {measure.value}",
            hint="do the outputs hold NaN? look at one sample with edgesdk run",
        )
    return measure
