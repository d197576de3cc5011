"""How long-running functions say how far they are; the CLI draws it, nothing here prints."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

__all__ = [
    "LiveFigures",
    "OnNote",
    "OnProgress",
    "Progress",
    "RateMeter",
    "ignore_note",
    "ignore_progress",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveFigures:
    """What a measurement that goes on has to tell; what is not known is None or empty.

    ``recent_ms`` are some of the runs since the last time, ``half_width`` that of the interval
    of the median as a share of it. ``cpu_mhz`` is the mean clock, ``temp_c`` the warmest zone,
    ``limited`` says whether something holds the clock down.
    """

    recent_ms: tuple[float, ...] = ()
    half_width: float | None = None
    cpu_mhz: float | None = None
    temp_c: float | None = None
    limited: bool | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """One sign of life of one step.

    ``total`` is None where it is not known; ``unit`` is ``"B"`` for bytes, else a plural noun.
    A step is over when ``done == total``. ``rate_per_s`` is how many units a second are done
    now, None where nobody has measured it. ``live`` is what a measurement has found so far.
    """

    step: str
    done: int
    total: int | None = None
    unit: str = ""
    rate_per_s: float | None = None
    live: LiveFigures | None = None

    @property
    def left_s(self) -> float | None:
        """How long the rest takes at this rate, in seconds; None where that is not known."""
        if self.total is None or not self.rate_per_s:
            return None
        return max(0, self.total - self.done) / self.rate_per_s


OnProgress = Callable[[Progress], None]
#: Takes a remark for people, of one or more lines.
OnNote = Callable[[str], None]


class RateMeter:
    """Measures a rate over the last seconds: a stall shows soon, a burst does not mislead.

    Args:
        span_s: Over how many seconds.
        clock: Gives seconds that only rise.
    """

    def __init__(
        self, *, span_s: float = 5.0, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._span_s = span_s
        self._step_s = span_s / 50
        self._clock = clock
        self._seen: deque[tuple[float, int]] = deque([(clock(), 0)])
        self._done = 0

    def note(self, done: int) -> None:
        """Take how much is done in all."""
        now = self._clock()
        self._done = done
        if now - self._seen[-1][0] >= self._step_s:
            self._seen.append((now, done))
        while len(self._seen) > 2 and now - self._seen[1][0] >= self._span_s:
            self._seen.popleft()

    def per_s(self, *, at_least_s: float = 0.25) -> float | None:
        """The rate now, or None before it was measured over ``at_least_s`` seconds."""
        since, then = self._seen[0]
        seconds = self._clock() - since
        return (self._done - then) / seconds if seconds >= at_least_s else None


def ignore_progress(progress: Progress) -> None:
    """Take a progress report and do nothing: the default of every ``on_progress``."""


def ignore_note(text: str) -> None:
    """Take a remark and do nothing: the default of every ``on_note``."""
