"""Whether one graph is slower than another on this computer, which may be busy meanwhile."""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgesdk.quantize.host import HostSession, give_memory_back

if TYPE_CHECKING:
    import numpy as np
    import onnx_ir

__all__ = ["PairedTimes", "time_pair"]

#: A graph is slower that takes this many times as long as another.
_SLOWER = 1.03
#: And takes this much longer: less is the cost of calls, whatever the graph does in them.
_LEAST_MS = 0.01
#: A sign test at 1 %: all of so many pairs are slower, or all but one of so many.
_ALL_OF, _ALL_BUT_ONE_OF = 7, 12
#: Runs in one visit, after two that are not counted.
_RUNS = 8
#: A visit ends after this, whatever its runs.
_VISIT_S = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class PairedTimes:
    """Times of two graphs, visited in turn.

    Attributes:
        before_ms: Median of the first.
        after_ms: Median of the second.
        slower: In how many pairs of visits the second was slower, by 3 % and 10 us at least.
        pairs: How many pairs there were.
    """

    before_ms: float
    after_ms: float
    slower: int
    pairs: int

    @property
    def is_slower(self) -> bool:
        """Whether the second is slower beyond what chance explains in one case of a hundred."""
        missed = self.pairs - self.slower
        return self.pairs >= (_ALL_OF if missed == 0 else _ALL_BUT_ONE_OF) and missed <= 1


def time_pair(
    before: onnx_ir.Model, after: onnx_ir.Model, inputs: Mapping[str, np.ndarray]
) -> PairedTimes:
    """Time two graphs on one input, in turn.

    One thread: what is compared is the work, and it disturbs the least. A pair compares the
    fastest run of each visit, which other programs disturb the least. Two pairs in which the
    second graph is not slower settle it.

    Raises:
        QuantizeError: The runtime does not take a graph or the inputs.
    """
    models = (before, after)
    times: tuple[list[float], list[float]] = ([], [])
    slower = pairs = 0
    while pairs < _ALL_BUT_ONE_OF:
        fastest = [0.0, 0.0]
        # one session at a time: two would lie side by side; each is the first in turn
        for which in (0, 1) if pairs % 2 == 0 else (1, 0):
            give_memory_back()
            taken = _visit(HostSession(models[which], threads=1), inputs)
            times[which].extend(taken)
            fastest[which] = min(taken)
        pairs += 1
        slower += fastest[1] > fastest[0] * _SLOWER + _LEAST_MS
        missed = pairs - slower
        if missed > 1 or (missed == 0 and pairs == _ALL_OF):
            break
    return PairedTimes(
        before_ms=statistics.median(times[0]),
        after_ms=statistics.median(times[1]),
        slower=slower,
        pairs=pairs,
    )


def _visit(session: HostSession, inputs: Mapping[str, np.ndarray]) -> list[float]:
    taken = []
    begun = time.perf_counter()
    for number in range(_RUNS + 2):
        start = time.perf_counter()
        session.run(inputs)
        if number >= 2:
            taken.append((time.perf_counter() - start) * 1e3)
        if number >= 3 and time.perf_counter() - begun > _VISIT_S:
            break
    return taken
