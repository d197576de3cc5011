"""What `deploy` and `bench` do alike to be remembered: their options, and the recording."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgesdk.cli.output import printable
from edgesdk.devices.text import utf8_text
from edgesdk.errors import HistoryError
from edgesdk.settings import Settings

if TYPE_CHECKING:
    from edgesdk.bench.values import BenchmarkReport

__all__ = ["LabelOption", "NoHistoryOption", "check_labels", "record_run"]

LabelOption = Annotated[
    list[str] | None,
    typer.Option(
        "--label",
        metavar="NAME",
        help="Call the measurement this in the history, for 'edgesdk gate --against NAME'; "
        "repeatable.",
    ),
]
NoHistoryOption = Annotated[
    bool, typer.Option("--no-history", help="Do not write the measurement into the history.")
]


def check_labels(labels: list[str] | None) -> None:
    """Refuse labels that cannot be ones before anything is built or measured.

    Raises:
        HistoryError: One cannot.
    """
    if labels:
        from edgesdk.bench.history_values import check_label

        for label in labels:
            check_label(label)


def record_run(
    settings: Settings,
    report: BenchmarkReport,
    *,
    folder: Path | None = None,
    labels: list[str] | None = None,
    off: bool = False,
) -> str | None:
    """Write a measurement into the history; give its id, None where it was not written.

    A report without samples is no measurement. What keeps the history from being written is
    said on stderr and fails nothing: the report lies in its folder.

    Args:
        settings: Where the history is, and whether it is kept.
        report: What was measured.
        folder: Where the bundle lies.
        labels: What to call it.
        off: Whether the user wants it left out.
    """
    if off or not settings.keep_history or not report.latency.samples_ms:
        return None
    from edgesdk.bench.history import History
    from edgesdk.bench.history_source import find_provenance
    from edgesdk.bench.history_values import describe_run
    from edgesdk.report.files import encode_report

    try:
        run = describe_run(
            report,
            provenance=find_provenance(Path.cwd(), os.environ),
            labels=labels or (),
            folder=None if folder is None else _told(folder),
        )
        with History(settings.history) as history:
            history.add(run, encode_report(report))
    except (HistoryError, OSError) as exc:
        hint = getattr(exc, "hint", "")
        sys.stderr.write(
            f"warning: the measurement is not in the history: {printable(str(exc))}\n"
        )
        if hint:
            sys.stderr.write(f"  hint: {printable(hint)}\n")
        return None
    return run.id


def _told(folder: Path) -> str | None:
    """Say where a bundle lies; None where its path is no text, so that nobody looks there."""
    path = str(folder.resolve())
    return path if utf8_text(path) == path else None
