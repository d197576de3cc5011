"""The view of a measurement that goes on: what is told is shown, what is not shows nothing."""

from __future__ import annotations

import io

from edgesdk.cli.live import LiveView
from edgesdk.cli.progress import SparseLines, progress_bars
from edgesdk.progress import LiveFigures as Live
from edgesdk.progress import Progress


def test_a_long_run_cannot_fill_the_memory() -> None:
    view = LiveView()
    for _ in range(400):
        view.take(Live(recent_ms=(1.0,) * 256))
    assert len(view._runs) <= 4096 + 256
    assert len(view._course) == 40


def test_view_shows_median_course_and_device() -> None:
    view = LiveView()
    view.take(Live(recent_ms=(4.0,) * 20, half_width=0.0123, cpu_mhz=2400.0, temp_c=51.6))
    view.take(Live(recent_ms=(5.0,) * 10, limited=True))
    assert view.lines == [
        "median  about 4.00 ms ± 1.2 %",
        "course  ▄█ 4.00 to 5.00 ms",
        "device  2,400 MHz, 52 °C, clock limited",
    ]


def test_view_of_an_agent_that_tells_little_is_short() -> None:
    view = LiveView()
    assert view.lines == []
    view.take(Live(temp_c=40.0))
    assert view.lines == ["device  40 °C"]
    view.take(Live(recent_ms=(1.0, 1.0)))
    assert view.lines == ["device  40 °C"]  # two runs give no median


def test_thinned_runs_still_give_the_median() -> None:
    view = LiveView()
    for i in range(200):
        view.take(Live(recent_ms=tuple(1.0 + (i + k) % 100 / 100 for k in range(100))))
    assert view.median in ("about 1.49 ms", "about 1.50 ms", "about 1.51 ms")


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_on_a_terminal_the_view_stands_under_the_bar(monkeypatch) -> None:
    screen = Terminal()
    monkeypatch.setattr("sys.stderr", screen)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "80")
    with progress_bars() as tell:
        live = Live(recent_ms=(4.0,) * 20, cpu_mhz=2400.0)
        tell(Progress(step="measure int8", done=20, unit="runs", live=live))
        tell(Progress(step="measure int8", done=30, unit="runs"))
    shown = screen.getvalue()
    with progress_bars() as tell:
        tell(Progress(step="evaluate", done=1, unit="samples"))
    assert "measure int8" in shown
    assert "  median  about 4.00 ms" in shown
    assert "  device  2,400 MHz" in shown
    assert "median" not in screen.getvalue()[len(shown) :].split("evaluate", 1)[1]


def test_in_a_pipe_the_median_is_said_with_the_rest() -> None:
    now = [0.0]
    file = io.StringIO()
    tell = SparseLines(file, clock=lambda: now[0])
    for done in (10, 20):
        live = Live(recent_ms=(4.0,) * 10)
        tell(Progress(step="measure int8", done=done, unit="runs", live=live))
        now[0] += 11
    assert file.getvalue() == "measure int8: 20 runs, median about 4.00 ms\n"
