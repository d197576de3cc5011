"""When a warm-up is over, and when enough was measured. Worker only.

**Warm-up.** Runs are looked at in windows of at least 5 runs and 20 ms. It is over when the
faster of the last two windows is at most 2 % below the faster of the two before: what gets warm
gets faster, and stops doing so. (A device that throttles gets slower; that is no warm-up.)

**Enough.** The counted runs, in their order, are cut into 20 batches of equal count, and each
gives its median. The 6th and the 15th of these 20 medians enclose the median with 95.9 %
(Hahn and Meeker 1991, section 5.2). Half their distance, by the median, is the half-width that
has to be below a bound. Batches and not single runs, because runs that follow each other are
alike: an interval that takes them as independent gets narrow too early. It is looked at when
the count has grown by a third, so that looking often does not find a narrow one by luck.
"""

from __future__ import annotations

import array
import statistics
from typing import Any, Callable, Optional, Sequence

__all__ = ["Pace", "Settling", "half_width"]

_BATCHES = 20
_LEAST_PER_BATCH = 3
#: A median of so many runs, evenly taken, is as good as one of all.
_MOST_PER_BATCH = 1001
#: From 0: the order statistics that enclose the median of 20 with 95.9 %.
_LOWER, _UPPER = 5, 14
_WINDOW_RUNS = 5
_WINDOW_NS = 20_000_000
_SETTLED = 0.98
_REPORT_NS = 500_000_000
_FIRST_LOOK_NS = 50_000_000
_GROWTH = 4 / 3
_RECENT = 48
_NEVER = 1 << 62


def half_width(columns: Sequence[Any], counts: Sequence[int]) -> Optional[float]:
    """Half the 95 % interval of the median by batches, as a share of the median.

    Args:
        columns: Samples of each stream in their order.
        counts: How many of each are taken.

    Returns:
        None with fewer than 60 samples.
    """
    if sum(counts) < _BATCHES * _LEAST_PER_BATCH:
        return None
    medians = []
    for batch in range(_BATCHES):
        taken = []
        for column, count in zip(columns, counts):
            first, last = count * batch // _BATCHES, count * (batch + 1) // _BATCHES
            step = max(1, -(-(last - first) // _MOST_PER_BATCH))
            taken += column[first:last:step]
        if not taken:
            return None
        medians.append(statistics.median(taken))
    medians.sort()
    middle = statistics.median(medians)
    return (medians[_UPPER] - medians[_LOWER]) / 2 / middle if middle > 0 else None


class Settling:
    """Looks at a warm-up as it goes on."""

    def __init__(self) -> None:
        self._medians = array.array("d")
        self._from = 0

    def look(self, samples: Any, count: int, elapsed_ns: int) -> bool:
        """Say whether it is over; ``elapsed_ns`` is since the last window was closed."""
        if count - self._from < _WINDOW_RUNS or elapsed_ns < _WINDOW_NS:
            return False
        self._medians.append(statistics.median(samples[self._from : count]))
        self._from = count
        if len(self._medians) < 4:
            return False
        before, last = min(self._medians[-4:-2]), min(self._medians[-2:])
        return last >= _SETTLED * before

    def is_new_window(self, count: int) -> bool:
        """Say whether the last look closed a window."""
        return self._from == count


class Pace:
    """Decides between two runs whether there is another one, and tells the host how it goes.

    Args:
        least: Runs to make at least.
        most: Runs to make at most.
        duration_ns: Time after which no run is begun; 0 for no limit.
        until: The half-width of the median's interval, as a share, that ends it; 0 for none.
        patience_ns: How long to go on for that, once ``least`` runs are made; 0 for ever.
        settle: Whether it ends as soon as the runs get no faster any more.
        report: Told the step, the count, the total where it is known, and more fields.
        step: What to call this.
    """

    def __init__(
        self,
        *,
        least: int,
        most: int,
        duration_ns: int,
        until: float = 0.0,
        patience_ns: int = 0,
        settle: bool = False,
        report: Callable[..., None],
        step: str,
    ) -> None:
        self.least = least
        self.most = most
        self.until = until
        self.half_width = None  # type: Optional[float]
        #: Why it ended: ``runs``, ``interval``, ``time`` or ``settled``.
        self.stopped = "runs"
        self._duration_ns = duration_ns
        self._patience_ns = patience_ns
        self._settling = Settling() if settle else None
        self._report = report
        self._step = step
        self._next_count = 0
        self._enough_at = _NEVER
        self._reported = 0
        #: How often the clock was seen to go back.
        self.clock_went_back = 0

    @property
    def limit(self) -> int:
        """Runs after which a loop stops by itself."""
        return self.most if self.until or self._settling else self.least

    def announce(self) -> None:
        """Tell the agent that the counted runs begin."""
        self._report(self._step, 0, None, {"phase": "counted"})

    def over(self) -> None:
        """Tell the agent that they are over."""
        self._report(self._step, self._reported, None, {"phase": "over"})

    def begin(self, now: int) -> int:
        """Start the clock; give the time at which to look first."""
        self._seen = now
        self._stop = now + self._duration_ns if self._duration_ns else _NEVER
        self._next_report = now + _REPORT_NS
        self._window = now
        return self._next(now, now + _FIRST_LOOK_NS)

    def _next(self, now: int, look: int) -> int:
        if self._settling is not None:
            look = now + _WINDOW_NS
        elif not self.until:
            look = _NEVER
        return min(self._stop, self._next_report, max(look, now + 1))

    def look(self, columns: Sequence[Any], counts: Sequence[int], now: int) -> int:
        """Give the time at which to look again; 0 to stop.

        Args:
            columns: Samples of each stream.
            counts: How many there are of each.
            now: The time, by the clock that ``begin`` was given.
        """
        count = sum(counts)
        if now < self._seen:
            self._follow_back(self._seen - now)
        self._seen = now
        if self._settling is not None and self._has_settled(columns, counts, count, now):
            return 0
        if now >= self._stop:
            self.stopped = "time"
            return 0
        if self.until and count >= self.least:
            self._enough_at = min(self._enough_at, now)
            if count >= self._next_count:
                self._next_count = int(count * _GROWTH) + 1
                self.half_width = half_width(columns, counts)
                if self.half_width is not None and self.half_width <= self.until:
                    self.stopped = "interval"
                    return 0
            if self._patience_ns and now - self._enough_at >= self._patience_ns:
                self.stopped = "time"
                return 0
        if now >= self._next_report:
            self._tell(columns, counts, count)
            self._next_report = now + _REPORT_NS
        return self._next(now, now + _FIRST_LOOK_NS)

    def _follow_back(self, back: int) -> None:
        """Have what is due later come due as it would have, had the clock not gone back."""
        self.clock_went_back += 1
        self._stop -= back
        self._next_report -= back
        self._window -= back
        self._enough_at -= back

    def settle_account(self, columns: Sequence[Any], counts: Sequence[int]) -> None:
        """Work the half-width out of all that was measured."""
        self.half_width = half_width(columns, counts)

    def _has_settled(
        self, columns: Sequence[Any], counts: Sequence[int], count: int, now: int
    ) -> bool:
        assert self._settling is not None
        is_over = self._settling.look(columns[0], counts[0], now - self._window)
        if self._settling.is_new_window(counts[0]):
            self._window = now
        if is_over and count >= self.least:
            self.stopped = "settled"
            return True
        return False

    def _tell(self, columns: Sequence[Any], counts: Sequence[int], count: int) -> None:
        """Tell the host how far it is, with some of the runs since the last time."""
        recent = []
        since = count - self._reported
        for column, made in zip(columns, counts):
            new = min(made, max(1, since // len(counts)))
            step = max(1, -(-new * len(counts) // _RECENT))
            recent += column[max(0, made - new) : made : step]
        self._reported = count
        exact = not self.until and self._settling is None and not self._duration_ns
        live = {"recent_ns": [int(ns) for ns in recent if ns >= 0], "since": since}
        if self.half_width is not None:
            live["half_width"] = self.half_width
        self._report(self._step, count, self.limit if exact else None, live)
