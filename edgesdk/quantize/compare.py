"""How far a candidate is from the float graph, on the samples that were kept."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from edgesdk.quantize.host import HostSession, give_memory_back, sums_saturate
from edgesdk.quantize.observe import Kept

if TYPE_CHECKING:
    import onnx_ir

__all__ = ["noise_by_output", "noise_db", "open_candidate", "sqnr_db"]

#: Bounds of one output's noise, so that one that is exact or lost does not decide alone.
_LEAST_DB, _MOST_DB = -90.0, 20.0


def open_candidate(model: onnx_ir.Model) -> HostSession:
    """Open a quantized graph as it is judged: with its 8-bit kernels where they are exact."""
    give_memory_back()
    return HostSession(model, optimize="off" if sums_saturate() else "extended")


def noise_by_output(session: HostSession, kept: Sequence[Kept]) -> dict[str, float]:
    """Give the power of the error over that of the float answer, per output.

    Whole-number outputs are told by the share of elements that differ. 0 is exact; NaN counts
    as infinite.
    """
    import numpy as np

    error: dict[str, float] = {}
    signal: dict[str, float] = {}
    for one in kept:
        answers = session.run(one.inputs)
        for name, wanted in one.answers.items():
            got = answers.get(name)
            if got is None or got.shape != wanted.shape or not wanted.size:
                continue
            if wanted.dtype.kind == "f":
                true = wanted.astype(np.float64)
                away = got.astype(np.float64) - true
                lost, power = float((away**2).sum()), float((true**2).sum())
            elif wanted.dtype.kind in "iub":
                lost, power = float((got != wanted).sum()), float(wanted.size)
            else:
                continue
            error[name] = error.get(name, 0.0) + (lost if math.isfinite(lost) else math.inf)
            signal[name] = signal.get(name, 0.0) + power
    return {
        name: error[name] / signal[name]
        if signal[name] > 0
        else (0.0 if not error[name] else math.inf)
        for name in error
    }


def noise_db(noise: dict[str, float]) -> float:
    """Give the mean over outputs of the noise in dB; lower is nearer to float."""
    values = [10 * math.log10(max(one, 1e-12)) for one in noise.values()]
    bounded = [min(_MOST_DB, max(_LEAST_DB, value)) for value in values]
    return sum(bounded) / len(bounded) if bounded else 0.0


def sqnr_db(noise: float) -> float | None:
    """Give a noise ratio as signal over noise in dB; None where there is no noise or no end."""
    if noise <= 0 or not math.isfinite(noise):
        return None
    return -10 * math.log10(noise)
