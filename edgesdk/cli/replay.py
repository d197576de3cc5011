"""``edgesdk bench --like``: make a measurement again and say whether it comes out the same."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgesdk.cli.deltas import find_bases
from edgesdk.cli.deployjob import Job, profile_of
from edgesdk.cli.devicelink import find_device, note_wait, open_session
from edgesdk.cli.measure import measure_release
from edgesdk.cli.output import Output
from edgesdk.cli.progress import busy, progress_bars
from edgesdk.cli.quantities import read_share
from edgesdk.cli.recording import record_run
from edgesdk.cli.runfolder import held_bundle, prepare_run_folder, run_folder
from edgesdk.errors import EXIT_FINDINGS, InputError
from edgesdk.settings import Settings

if TYPE_CHECKING:
    from edgesdk.bench.regression_values import ReplayResult
    from edgesdk.bench.values import BenchmarkReport

__all__ = ["LikeOption", "MarginOption", "refuse_with_like", "replay"]

MARGIN = "5%"

LikeOption = Annotated[
    str | None,
    typer.Option(
        "--like",
        metavar="REPORT",
        help="Repeat this measurement, a report.json or a run of the history: the same bundle "
        "and spec. Exit with 1 where it does not agree.",
    ),
]
MarginOption = Annotated[
    str | None,
    typer.Option(
        "--margin",
        metavar=MARGIN,
        help=f"How far medians may be apart with --like. Default: {MARGIN}.",
    ),
]


def refuse_with_like(options: Mapping[str, object]) -> None:
    """Refuse options that would make a repetition something else.

    Args:
        options: By name, what was given; None or False is nothing.

    Raises:
        InputError: One was given.
    """
    for option, value in options.items():
        if value is not None and value is not False:
            raise InputError(
                f"cannot use {option} with --like: the report says what is measured, and how",
                hint=f"leave {option} out, or measure without --like",
                option=option,
            )


def replay(
    out: Output,
    settings: Settings,
    *,
    like: str,
    device: str | None,
    bundle: Path | None,
    margin: str | None,
    out_dir: Path | None,
    labels: list[str] | None,
    no_history: bool,
) -> None:
    """Measure again what ``like`` reports, and show whether it agrees.

    A bundle that the device does not hold is sent, checked, and becomes its candidate.

    Raises:
        InputError: The report or its bundle cannot be used.
        DeviceError: The device failed or refuses the bundle.
        LinkError: The link broke.
        Exit: With 1, where it does not agree.
    """
    from edgesdk.bench.regression import make_replay
    from edgesdk.bench.regression_conditions import find_differences, require_whole
    from edgesdk.deploy.deploy import prove_bundle
    from edgesdk.deploy.hold import hold_device
    from edgesdk.report.files import write_report

    allowed = read_share(margin or MARGIN, option="--margin", ends=True)
    called, theirs = _wanted(settings, like)
    if not theirs.latency.samples_ms:
        raise InputError(
            f"cannot repeat {called}: it holds no latency sample",
            hint="name a report of `edgesdk bench`, or of `deploy` without --no-bench",
        )
    require_whole(theirs, called=called)
    found = find_device(settings, device or theirs.device.name)
    held = held_bundle(settings, theirs.bundle.id, bundle)
    assert held is not None
    folder = out_dir or run_folder(settings, model=held.name, target=theirs.target.name)
    prepare_run_folder(folder)
    job = Job(
        bundle=held,
        floats=None,
        profile=profile_of(settings, held),
        reference=None,
        data=None,
        folder=folder,
    )
    with (
        open_session(settings, found) as session,
        hold_device(session, doing="bench", on_wait=note_wait),
    ):
        with progress_bars() as on_progress:
            prove_bundle(held, session, bases=find_bases(settings), on_progress=on_progress)
        ours = measure_release(session, job, found, spec=theirs.spec)
    with busy("draw the report"):
        written = write_report(ours, folder)
    run = record_run(settings, ours, folder=held.folder, labels=labels, off=no_history)
    result = make_replay(
        ours,
        theirs,
        called=called,
        differences=find_differences(ours, theirs),
        margin=allowed,
    )
    out.document({"replay": result, "report": ours, "folder": folder, "run": run})
    _show(out, result, written.html)
    if not result.agrees:
        raise typer.Exit(EXIT_FINDINGS)


def _wanted(settings: Settings, like: str) -> tuple[str, BenchmarkReport]:
    """Say what the measurement is called that is repeated, and read its report."""
    from edgesdk.report.read import is_report, parse_report, read_report

    if is_report(like):
        return like, read_report(Path(like))
    from edgesdk.bench.history import History, RunFilter

    with History(settings.history, make=False) as history:
        run = history.resolve(like, RunFilter())
        name = f"run {run.id[:12]}"
        return name, parse_report(history.report(run.id), name=f"of {name}")


def _show(out: Output, result: ReplayResult, page: Path) -> None:
    from edgesdk.report.gate import side_rows

    out.line(f"{result.ours.model} on {result.ours.device} {result.text}\n")
    out.table(("", "this", "before"), side_rows(result.ours, result.theirs))
    out.line()
    differences = [
        ("differs", f"{each.name} is {each.ours}, was {each.theirs}")
        for each in result.differences
    ]
    out.pairs([*differences, ("report", page)])
