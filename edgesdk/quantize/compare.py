"""How far a candidate is from the float graph, on the samples that were kept."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from edgesdk.quantize.host import HostSession, give_memory_back, sums_saturate
from edgesdk.quantize.observe import Kept

if TYPE_CHECKING:
    import numpy as np
    import onnx_ir

__all__ = [
    "Powers",
    "joined",
    "noise_by_output",
    "noise_db",
    "open_candidate",
    "powers_by_sample",
    "sqnr_db",
]

#: Power of the error and of the float answer, by output.
Powers = dict[str, tuple[float, float]]

#: Bounds of one output's noise, so that one that is exact or lost does not decide alone.
_LEAST_DB, _MOST_DB = -90.0, 20.0


def open_candidate(model: onnx_ir.Model) -> HostSession:
    """Open a quantized graph as it is judged: with its 8-bit kernels where they are exact."""
    give_memory_back()
    return HostSession(model, optimize="off" if sums_saturate() else "extended")


def powers_by_sample(session: HostSession, kept: Sequence[Kept]) -> list[Powers]:
    """Give for each sample, per output, the power of the error and that of the float answer.

    Of whole-number outputs it is the number of elements that differ, and of all. An error that
    is no number counts as infinite; where both are the same infinity there is none.
    """
    return [_powers(one, session.run(one.inputs)) for one in kept]


def _powers(one: Kept, answers: Mapping[str, np.ndarray]) -> Powers:
    import numpy as np

    found = {}
    for name, wanted in one.answers.items():
        got = answers.get(name)
        if wanted.dtype.kind not in "fiub":
            continue
        if got is None or got.shape != wanted.shape:
            # as many boxes, or words, as the answer has: all of it is wrong
            found[name] = (1.0, 1.0)
        elif not wanted.size:
            continue
        elif wanted.dtype.kind == "f":
            true = wanted.astype(np.float64)
            with np.errstate(invalid="ignore"):
                away = np.where(got == wanted, 0.0, got.astype(np.float64) - true)
            lost = float((away**2).sum())
            power = float((true[np.isfinite(true)] ** 2).sum())
            found[name] = (lost if math.isfinite(lost) else math.inf, power)
        else:
            found[name] = (float((got != wanted).sum()), float(wanted.size))
    return found


def noise_by_output(session: HostSession, kept: Sequence[Kept]) -> dict[str, float]:
    """Give the power of the error over that of the float answer, per output; 0 is exact."""
    return joined(powers_by_sample(session, kept))


def joined(powers: Sequence[Powers]) -> dict[str, float]:
    """Give the noise ratio per output over several samples."""
    error: dict[str, float] = {}
    signal: dict[str, float] = {}
    for one in powers:
        for name, (lost, power) in one.items():
            error[name] = error.get(name, 0.0) + lost
            signal[name] = signal.get(name, 0.0) + power
    return {
        name: error[name] / signal[name]
        if signal[name] > 0
        else (0.0 if not error[name] else math.inf)
        for name in error
    }


def noise_db(powers: Sequence[Powers]) -> float:
    """Give the noise in dB, mean over outputs; lower is nearer to float.

    Half of it is the noise of all samples together, which the worst decide, half the mean of
    each sample's own, which the typical decide: a change that helps has to help both.
    """
    if not powers:
        return 0.0
    each = [_mean_db(joined([one])) for one in powers]
    return 0.5 * _mean_db(joined(powers)) + 0.5 * sum(each) / len(each)


def _mean_db(noise: Mapping[str, float]) -> float:
    values = [10 * math.log10(max(one, 1e-12)) for one in noise.values()]
    bounded = [min(_MOST_DB, max(_LEAST_DB, value)) for value in values]
    return sum(bounded) / len(bounded) if bounded else 0.0


def sqnr_db(noise: float) -> float | None:
    """Give a noise ratio as signal over noise in dB; None where there is no noise or no end."""
    if noise <= 0 or not math.isfinite(noise):
        return None
    return -10 * math.log10(noise)
