"""What is known of a measurement while it goes on: a median, its course, clock and heat."""

from __future__ import annotations

from edgesdk.progress import LiveFigures
from edgesdk.report.spark import spark
from edgesdk.report.summary import ms_text

__all__ = ["LiveView"]

#: More runs are thinned out: every other one is dropped, and of those to come as many.
_MOST_RUNS = 4096
_BARS = 40
_FEWEST = 6
_ROOM = 0.8


class LiveView:
    """Collects what a measurement tells and says it in a line or three.

    An agent tells of some runs only, so the median is said to be about right.
    """

    def __init__(self) -> None:
        self._runs: list[float] = []
        self._course: list[float] = []
        self._keep_every = 1
        self._seen = 0
        self._last = LiveFigures()

    def take(self, live: LiveFigures) -> None:
        """Take the next sign of life; what it does not tell stays as it was."""
        before = self._last
        self._last = LiveFigures(
            half_width=before.half_width if live.half_width is None else live.half_width,
            cpu_mhz=before.cpu_mhz if live.cpu_mhz is None else live.cpu_mhz,
            temp_c=before.temp_c if live.temp_c is None else live.temp_c,
            limited=before.limited if live.limited is None else live.limited,
        )
        for run in live.recent_ms:
            if self._seen % self._keep_every == 0:
                self._runs.append(run)
            self._seen += 1
        if len(self._runs) > _MOST_RUNS:
            del self._runs[1::2]
            self._keep_every *= 2
        if live.recent_ms:
            self._course = [*self._course, _median(live.recent_ms)][-_BARS:]

    @property
    def median(self) -> str:
        """The median so far with its interval; empty before there are some runs."""
        if len(self._runs) < _FEWEST:
            return ""
        text = f"about {ms_text(_median(self._runs))}"
        width = self._last.half_width
        return text if width is None else f"{text} ± {width:.1%}".replace("%", " %")

    @property
    def lines(self) -> list[str]:
        """What there is to show, a line each."""
        shown = []
        if self.median:
            shown.append(f"median  {self.median}")
        if len(self._course) > 1:
            low, high = ms_text(min(self._course)), ms_text(max(self._course))
            bars = spark(self._course, low=_ROOM * min(self._course))
            shown.append(f"course  {bars} {low.removesuffix(' ms')} to {high}")
        device = []
        if self._last.cpu_mhz is not None:
            device.append(f"{self._last.cpu_mhz:,.0f} MHz")
        if self._last.temp_c is not None:
            device.append(f"{self._last.temp_c:.0f} °C")
        if self._last.limited:
            device.append("clock limited")
        if device:
            shown.append(f"device  {', '.join(device)}")
        return shown


def _median(values: list[float] | tuple[float, ...]) -> float:
    ordered = sorted(values)
    return ordered[len(ordered) // 2]
