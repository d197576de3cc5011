"""Progress in a pipe: silence for quick steps, signs of life for slow ones."""

from __future__ import annotations

import io

from edgesdk.cli.progress import SparseLines, amount, busy, progress_bars
from edgesdk.progress import Progress


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_quick_step_says_nothing() -> None:
    file, clock = io.StringIO(), Clock()
    tell = SparseLines(file, clock=clock)
    for done in range(101):
        clock.now += 0.01
        tell(Progress(step="push", done=done, total=100, unit="B"))
    assert file.getvalue() == ""


def test_a_slow_step_says_something_every_ten_seconds_and_at_its_end() -> None:
    file, clock = io.StringIO(), Clock()
    tell = SparseLines(file, clock=clock)
    for done in range(26):
        tell(Progress(step="push", done=done, total=25, unit="blobs"))
        clock.now += 1.0
    assert file.getvalue() == "push: 10/25 blobs\npush: 20/25 blobs\npush: 25/25 blobs\n"


def test_a_step_name_from_a_device_cannot_steer_the_terminal() -> None:
    file, clock = io.StringIO(), Clock()
    tell = SparseLines(file, clock=clock)
    tell(Progress(step="\x1b[2J", done=0))
    clock.now = 11.0
    tell(Progress(step="\x1b[2J", done=1))
    assert file.getvalue() == "\\x1b[2J: 1\n"


def test_amounts_read_as_people_say_them() -> None:
    assert amount(Progress(step="s", done=3, total=10, unit="nodes")) == "3/10 nodes"
    assert amount(Progress(step="s", done=1536, total=3072, unit="B")) == "1.5 KiB of 3.0 KiB"
    assert amount(Progress(step="s", done=1536, unit="B")) == "1.5 KiB"
    assert amount(Progress(step="s", done=4)) == "4"


def test_in_a_pipe_bars_are_sparse_lines(capsys) -> None:
    with progress_bars() as tell:
        tell(Progress(step="push", done=1, total=2))
    assert isinstance(tell, SparseLines)
    assert capsys.readouterr().err == ""


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_on_a_terminal_a_bar_is_drawn_and_taken_away(monkeypatch) -> None:
    screen = Terminal()
    monkeypatch.setattr("sys.stderr", screen)
    monkeypatch.setenv("TERM", "xterm")
    with progress_bars() as tell:
        tell(Progress(step="push [red]", done=1, total=2, unit="B"))
        tell(Progress(step="check", done=0, unit="vectors"))
        tell(Progress(step="check", done=2, total=2, unit="vectors"))
    assert "check" in screen.getvalue()
    assert screen.getvalue().rstrip("\n").endswith(("\x1b[2K", "\x1b[?25h"))


def test_a_step_of_unknown_length_has_no_amount_and_says_nothing_in_a_pipe(capsys) -> None:
    assert amount(Progress(step="read m.onnx", done=0)) == ""
    with busy("read m.onnx"):
        pass
    assert capsys.readouterr().err == ""


def test_a_known_rate_is_said_with_the_time_that_is_left() -> None:
    file, clock = io.StringIO(), Clock()
    tell = SparseLines(file, clock=clock)
    for rate, total in ((1024, 43008), (1024, 204800), (2, 30720), (1024, 1024)):
        tell(Progress(step="push", done=1024, total=total, unit="B", rate_per_s=rate))
        clock.now += 11
    assert file.getvalue() == (
        "push: 1.0 KiB of 200.0 KiB, 1.0 KiB/s, 3 min 19 s left\n"
        "push: 1.0 KiB of 30.0 KiB, 2 B/s, 4 h 7 min left\n"
        "push: 1.0 KiB of 1.0 KiB, 1.0 KiB/s\n"
    )
