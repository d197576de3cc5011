"""Whether values look like what a model was trained on: heuristics, so findings, not errors.

A model does not say which range it expects. What can be seen: pixels nobody scaled, values
scaled twice, inputs that never change, and evaluation data in another range than calibration
data. The last needs no guess: give the range seen at calibration as the reference.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from typing import TYPE_CHECKING

from edgesdk.data.values import DataFinding, InputRange

if TYPE_CHECKING:
    import numpy as np

    from edgesdk.data.dataset import Dataset
    from edgesdk.data.preprocess import Preprocess
    from edgesdk.tensors import TensorInfo

__all__ = ["lint_range", "lint_ranges", "measure_ranges"]

#: Below this many, a calibration sees too little of what a model meets.
_FEW_SAMPLES = 16
#: So many times wider or narrower than the reference is another unit, not another picture.
_FACTOR = 8.0


def lint_range(
    dataset: Dataset,
    *,
    preprocess: Preprocess | None = None,
    reference: Mapping[str, InputRange] | None = None,
    samples: int = 64,
) -> tuple[DataFinding, ...]:
    """Look at the first samples of a dataset and say what seems wrong with their values.

    Args:
        dataset: Any dataset.
        preprocess: The recipe's block, if it has one. It says what the model was trained on, so
            values that it could not make are reported, also where the data are arrays.
        reference: What calibration saw, by input; data that is compared with it, or with an
            empty mapping, may have few samples.
        samples: How many samples to look at.

    Raises:
        DataError: A sample cannot be read.
    """
    ranges = {
        name: replace(seen, samples=seen.samples * dataset.batch)
        for name, seen in measure_ranges(islice(dataset.samples(), samples)).items()
    }
    return lint_ranges(ranges, dataset.inputs, preprocess=preprocess, reference=reference)


def measure_ranges(samples: Iterable[Mapping[str, np.ndarray]]) -> dict[str, InputRange]:
    """Give what the values of each input look like over all the samples given."""
    import numpy as np

    low: dict[str, float] = {}
    high: dict[str, float] = {}
    total: dict[str, float] = {}
    finite: dict[str, int] = {}
    infinite: dict[str, int] = {}
    whole: dict[str, bool] = {}
    count = 0
    for count, sample in enumerate(samples, 1):  # noqa: B007 - used after the loop
        for name, array in sample.items():
            values = array.astype(np.float64).ravel()
            kept = values[np.isfinite(values)]
            infinite[name] = infinite.get(name, 0) + int(np.isinf(values).sum())
            finite[name] = finite.get(name, 0) + kept.size
            if kept.size:
                low[name] = min(low.get(name, math.inf), float(kept.min()))
                high[name] = max(high.get(name, -math.inf), float(kept.max()))
                total[name] = total.get(name, 0.0) + float(kept.sum())
                whole[name] = whole.get(name, True) and bool(np.all(kept == np.rint(kept)))
    return {
        name: InputRange(
            low=low.get(name, 0.0),
            high=high.get(name, 0.0),
            mean=total.get(name, 0.0) / max(1, finite[name]),
            whole=whole.get(name, True),
            infinite=infinite[name],
            samples=count,
        )
        for name in finite
    }


def lint_ranges(
    ranges: Mapping[str, InputRange],
    inputs: Sequence[TensorInfo],
    *,
    preprocess: Preprocess | None = None,
    reference: Mapping[str, InputRange] | None = None,
) -> tuple[DataFinding, ...]:
    """Say what seems wrong with ranges that were measured; see `lint_range`."""
    findings: list[DataFinding] = []
    for info in inputs:
        seen = ranges.get(info.name)
        if seen is None or not info.dtype.startswith("float"):
            continue
        findings += _lint_values(info.name, seen)
        if preprocess is None:
            findings += _lint_scale(info, seen)
        elif len(inputs) == 1:
            findings += _lint_block(info.name, seen, preprocess)
        before = (reference or {}).get(info.name)
        if before is not None:
            findings += _lint_against(info.name, seen, before)
    counts = [seen.samples for seen in ranges.values()]
    if counts and reference is None and max(counts) < _FEW_SAMPLES:
        findings.append(
            DataFinding(
                code="few-samples",
                severity="warning",
                message=f"there are {max(counts)} samples; calibration from so few may cut off "
                "values that it never saw",
                hint="give some 100 typical ones",
            )
        )
    return tuple(findings)


def _lint_values(name: str, seen: InputRange) -> list[DataFinding]:
    findings = []
    if seen.infinite:
        findings.append(
            DataFinding(
                code="infinite-values",
                severity="warning",
                message=f"{seen.infinite} values of {name!r} are infinite",
                hint="an infinite value leaves nothing of a quantized range; what made it?",
                subject=name,
            )
        )
    if seen.low == seen.high and seen.samples > 1:
        findings.append(
            DataFinding(
                code="constant-values",
                severity="warning",
                message=f"every value of {name!r} is {seen.low:g}",
                hint="is this the right array?",
                subject=name,
            )
        )
    return findings


def _lint_scale(info: TensorInfo, seen: InputRange) -> list[DataFinding]:
    """Recognise raw pixels, and pixels divided by 255 twice, in inputs that may be pictures."""
    if len(info.shape) < 3:
        return []
    if seen.whole and seen.low >= 0 and 32 <= seen.high <= 255:
        return [
            DataFinding(
                code="raw-pixels",
                severity="warning",
                message=f"values of {info.name!r} are whole numbers from {seen.low:g} to "
                f"{seen.high:g}, like pixels nobody scaled (models are mostly trained on 0 to "
                "1, or on mean 0 and deviation 1)",
                hint="divide by 255, unless the model does that itself",
                subject=info.name,
            )
        ]
    if seen.low >= 0 and 0 < seen.high <= 1 / 128:
        return [
            DataFinding(
                code="scaled-twice",
                severity="warning",
                message=f"values of {info.name!r} go from {seen.low:g} to {seen.high:g} "
                "(a picture of 0 to 1 divided by 255 once more looks like that)",
                hint="scale once",
                subject=info.name,
            )
        ]
    return []


def _lint_block(name: str, seen: InputRange, preprocess: Preprocess) -> list[DataFinding]:
    """Compare with the values that the preprocessing block can make."""
    low, high = preprocess.output_range
    slack = (high - low) / 100
    if low - slack <= seen.low and seen.high <= high + slack:
        return []
    return [
        DataFinding(
            code="not-preprocessed",
            severity="warning",
            message=f"values of {name!r} go from {seen.low:g} to {seen.high:g} and the "
            f"preprocess block makes {low:g} to {high:g}",
            hint="arrays are fed as they are: save what the block would make, or give pictures",
            subject=name,
        )
    ]


def _lint_against(name: str, seen: InputRange, before: InputRange) -> list[DataFinding]:
    """Compare with the range that calibration saw."""
    width, width_before = (max(abs(each.low), abs(each.high)) for each in (seen, before))
    if not width or not width_before:
        return []
    shifted = seen.low > before.high or seen.high < before.low
    if not shifted and 1 / _FACTOR <= width / width_before <= _FACTOR:
        return []
    return [
        DataFinding(
            code="other-range",
            severity="warning",
            message=f"values of {name!r} go from {seen.low:g} to {seen.high:g} and were "
            f"{before.low:g} to {before.high:g} at calibration",
            hint="prepare both in the same way",
            subject=name,
        )
    ]
