"""One drawing of `edgesdk.progress` for all commands, on stderr.

On a terminal a Rich bar that goes away when the command has something to say, with what a
measurement has found so far under it. In a pipe nothing for quick steps and a plain line every
ten seconds for slow ones, so that a log shows life without being flooded.
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, TextIO

from edgesdk.cli.output import printable, size_text
from edgesdk.progress import OnProgress, Progress

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.progress import Progress as Bars
    from rich.progress import TaskID

    from edgesdk.cli.live import LiveView

__all__ = ["SparseLines", "busy", "clear_bars", "progress_bars"]

_QUIET_S = 10.0


class SparseLines:
    """Writes a line for a step that lasts, at most one in ten seconds."""

    def __init__(self, file: TextIO, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._file = file
        self._clock = clock
        self._step = ""
        self._said_s = 0.0
        self._spoke = False
        self._view: LiveView | None = None

    def __call__(self, progress: Progress) -> None:
        """Take one sign of life."""
        now = self._clock()
        if progress.step != self._step:
            self._view = None
        self._view = _looked_at(self._view, progress)
        over = progress.total is not None and progress.done >= progress.total
        if progress.step != self._step:
            self._step, self._said_s, self._spoke = progress.step, now, False
            return
        if now - self._said_s < _QUIET_S and not (over and self._spoke):
            return
        self._said_s, self._spoke = now, not over
        left = (
            "" if over or progress.left_s is None else f", {_time_text(progress.left_s)} left"
        )
        median = "" if self._view is None else self._view.median
        if median:
            left += f", median {median}"
        self._file.write(f"{printable(progress.step)}: {amount(progress)}{left}\n")
        self._file.flush()


class _RichBars:
    """Draws the running step as a bar; finished steps leave the screen."""

    def __init__(self, bars: Bars, below: list[str]) -> None:
        self._bars = bars
        self._below = below
        self._tasks: dict[str, TaskID] = {}
        self._view: LiveView | None = None

    def pause(self) -> None:
        """Leave the screen to somebody else, for good."""
        self._bars.stop()

    def __call__(self, progress: Progress) -> None:
        step = printable(progress.step).replace("[", r"\[")
        task = self._tasks.get(step)
        if task is None:
            for other in self._tasks.values():
                self._bars.remove_task(other)
            self._tasks.clear()
            self._view = None
            task = self._tasks[step] = self._bars.add_task(
                step, total=progress.total, amount=""
            )
        self._view = _looked_at(self._view, progress)
        self._below[:] = [] if self._view is None else self._view.lines
        self._bars.update(
            task, completed=progress.done, total=progress.total, amount=amount(progress)
        )


def _looked_at(view: LiveView | None, progress: Progress) -> LiveView | None:
    """Let a view take what a measurement tells; there is none where none tells anything."""
    if progress.live is None:
        return view
    from edgesdk.cli.live import LiveView

    view = view or LiveView()
    view.take(progress.live)
    return view


def _time_text(seconds: float) -> str:
    """Say a time as a person does: ``42 s``, ``3 min 5 s``, ``2 h 10 min``."""
    whole = math.ceil(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    return (
        f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"
    )


def amount(progress: Progress) -> str:
    """Say how far a step is: ``3/10 nodes``, ``1.2 MiB``, with its rate where that is known."""
    if progress.unit == "B":
        done = size_text(progress.done)
        whole = done if progress.total is None else f"{done} of {size_text(progress.total)}"
        if progress.rate_per_s is None:
            return whole
        return f"{whole}, {size_text(round(progress.rate_per_s))}/s"
    if progress.total is None and not progress.done:
        return ""
    done = str(progress.done)
    whole = done if progress.total is None else f"{done}/{progress.total}"
    whole = f"{whole} {progress.unit}".rstrip()
    return whole if progress.rate_per_s is None else f"{whole}, {progress.rate_per_s:.3g}/s"


def clear_bars(on_progress: OnProgress) -> None:
    """Take bars that `progress_bars` offers off the screen, to ask the user something."""
    if isinstance(on_progress, _RichBars):
        on_progress.pause()


@contextmanager
def progress_bars() -> Iterator[OnProgress]:
    """Offer an ``on_progress`` that draws on stderr while the block runs."""
    if not sys.stderr.isatty():
        yield SparseLines(sys.stderr)
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        SpinnerColumn,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )
    from rich.progress import Progress as Bars
    from rich.text import Text

    below: list[str] = []

    class _BarsAndMore(Bars):
        """Shows lines of text under the bars."""

        def get_renderables(self) -> Iterable[RenderableType]:
            yield self.make_tasks_table(self.tasks)
            yield from (Text(f"  {line}", overflow="ellipsis", no_wrap=True) for line in below)

    with _BarsAndMore(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(bar_width=30),
        TextColumn("{task.fields[amount]}"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
    ) as bars:
        yield _RichBars(bars, below)


@contextmanager
def busy(step: str) -> Iterator[None]:
    """Show that a step goes on of which nobody knows how far it is."""
    with progress_bars() as on_progress:
        on_progress(Progress(step=step, done=0))
        yield
