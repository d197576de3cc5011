"""What calibration data and a graph's reactions to them give away: findings, never errors."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from edgesdk.model.values import Finding
from edgesdk.quantize.layout import Layout
from edgesdk.quantize.observe import Observed
from edgesdk.quantize.observers import TensorStats
from edgesdk.quantize.operands import constant_array

if TYPE_CHECKING:
    import onnx_ir

__all__ = ["lint_calibration", "unusable_tensors"]

_FEW_SAMPLES = 16
#: A share of the values at one end above which that end is taken for a wall.
_AT_THE_END = 0.5
#: What is added to scores so that nothing is left of them after a Softmax goes this far down;
#: exporters take -1e4, -1e9 or the lowest number there is.
_MASKED = -1e4
_STEPS = 255


def lint_calibration(
    model: onnx_ir.Model, layout: Layout, observed: Observed
) -> tuple[Finding, ...]:
    """Say what is allowed in calibration data and probably not what it should be."""
    stats = observed.whole
    return (*_samples(observed), *_inputs(model, stats), *_clips(layout, stats))


def unusable_tensors(observed: Observed) -> dict[str, str]:
    """Give the tensors that no range can be had of, with the reason."""
    reasons = {}
    for name, stats in observed.whole.items():
        if stats.not_finite:
            reasons[name] = f"tensor {name!r} held NaN or infinite values in calibration"
        elif not stats.seen:
            reasons[name] = f"tensor {name!r} was empty in every sample"
        elif _is_masked(stats):
            reasons[name] = (
                f"tensor {name!r} holds {stats.low:.3g} in place of minus infinity, and an "
                "8-bit grid that goes so far leaves nothing of its other numbers"
            )
    return reasons


def _is_masked(stats: TensorStats) -> bool:
    """Say whether all but what lies at a far low end would fall on one or two steps."""
    import numpy as np

    if stats.low > _MASKED or not stats.rows.size:
        return False
    rows = np.asarray(stats.rows, np.float64)
    step = (float(stats.high) - float(stats.low)) / _STEPS
    rest = rows[rows > stats.low + step]
    # numbers that are all the same lose nothing: the mask itself is such
    return bool(rest.size) and 0.0 < float(rest.max() - rest.min()) < 2 * step


def _samples(observed: Observed) -> Iterator[Finding]:
    if observed.samples < _FEW_SAMPLES:
        yield Finding(
            code="few-samples",
            severity="warning",
            message=f"{observed.samples} calibration samples are few (expected at least "
            f"{_FEW_SAMPLES})",
            hint="give some 100 typical inputs: ranges are as good as what was seen",
        )
    if observed.alike and observed.samples > 1:
        yield Finding(
            code="samples-alike",
            severity="warning",
            message=f"all {observed.samples} calibration samples are the same",
            hint="give different typical inputs",
        )


def _inputs(model: onnx_ir.Model, known: Mapping[str, TensorStats]) -> Iterator[Finding]:
    import numpy as np

    for value in model.graph.inputs:
        stats = known.get(value.name or "")
        if stats is None or not stats.seen:
            continue
        if stats.low == stats.high:
            yield Finding(
                code="input-constant",
                severity="warning",
                message=f"input {value.name!r} is {stats.low:g} everywhere in the calibration "
                "samples",
                hint="give typical inputs: nothing can be learned from a constant",
                subject=value.name or "",
            )
            continue
        rows = stats.rows
        # the lower end may be silence or an empty margin; the upper one is a wall
        share = float(np.mean(rows >= stats.high))
        if _AT_THE_END < share < 0.99 and np.unique(rows[:1024]).size > 2:
            yield Finding(
                code="input-saturated",
                severity="warning",
                message=f"{share:.0%} of the values of input {value.name!r} are "
                f"{stats.high:g}, the end of their range (expected numbers that spread)",
                hint="was the data clipped, or scaled otherwise than for training?",
                subject=value.name or "",
            )


def _clips(layout: Layout, known: Mapping[str, TensorStats]) -> Iterator[Finding]:
    """Look whether the first activation that clips is at its ceiling most of the time."""
    import numpy as np

    for unit in layout.units.values():
        clip = unit.absorbed
        if clip is None or clip.op_type != "Clip" or len(clip.inputs) < 3:
            continue
        bound = constant_array(clip.inputs[2])
        stats = known.get(clip.outputs[0].name or "")
        if bound is None or stats is None or not stats.rows.size:
            continue
        share = float(np.mean(stats.rows >= float(bound.reshape(()))))
        if share > _AT_THE_END:
            yield Finding(
                code="activation-saturated",
                severity="warning",
                message=f"{share:.0%} of what {clip.name or 'the first Clip'!r} gives is at "
                f"its ceiling of {float(bound.reshape(())):g} in the calibration samples",
                hint="are the inputs scaled as they were for training? pixels of 0 to 255 fed "
                "to a model for 0 to 1 look like that",
                subject=clip.name or "",
            )
        return
