"""The two runs of a gate: which they are, and looking at both on the device."""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from edgesdk.errors import EdgeError, HistoryError, InputError
from edgesdk.settings import Settings

if TYPE_CHECKING:
    from edgesdk.bench.history import History, RunFilter
    from edgesdk.bench.history_values import HistoryRun
    from edgesdk.bench.regression_values import Look
    from edgesdk.bench.values import BenchmarkReport
    from edgesdk.bundle.store import Bundle
    from edgesdk.devices.inventory import Device

__all__ = ["Measured", "Second", "choose_sides", "look_twice"]


#: Of what was recorded last, so much is looked at for what was measured here.
_LOOKED_AT = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """A run that is compared: how it was found, its report, what the history knows of it."""

    called: str
    report: BenchmarkReport
    run: HistoryRun | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Second:
    """How the second measurement is to be made."""

    settings: Settings
    device: Device | None
    limit: float
    seconds: float
    seed: int | None
    bundle: Path | None
    reference_bundle: Path | None


def choose_sides(
    settings: Settings,
    *,
    against: str,
    report: Path | None,
    run: str | None,
    model: str | None,
    device: str | None,
) -> tuple[Measured, Measured]:
    """Find the measurement and its reference.

    Raises:
        InputError: One of them cannot be found or read.
    """
    from edgesdk.bench.history import History, RunFilter
    from edgesdk.report.read import is_report, read_report
    from edgesdk.report.summary import clean

    if report is not None and run is not None:
        raise InputError(
            "cannot gate two measurements: --report and --run both name one",
            hint="leave one of them out",
        )
    is_file = is_report(against)
    if report is not None and is_file:  # no history is needed, so none is opened
        ours = Measured(called=str(report), report=read_report(report), run=None)
        return ours, Measured(called=against, report=read_report(Path(against)), run=None)
    with History(settings.history, make=False) as opened:
        if report is not None:
            ours = Measured(called=str(report), report=read_report(report), run=None)
        elif run is not None:
            found = opened.find(run)
            ours = _recorded(opened, found, called=f"run {found.id[:12]}")
        else:
            ours = _newest(opened, RunFilter(model=model, device=device))
        if is_file:
            return ours, Measured(called=against, report=read_report(Path(against)), run=None)
        reference = _reference(opened, ours, against)
        return ours, _recorded(opened, reference, called=clean(against, limit=40))


def _newest(opened: History, which: RunFilter) -> Measured:
    from edgesdk.near import suggest

    newest = opened.runs(which, limit=1)
    if not newest:
        known = opened.models()
        hint = suggest(which.model or "", known) if which.model not in known else ""
        raise HistoryError(
            f"cannot gate: history {opened.path} has no such measurement",
            hint=hint
            or "edgesdk deploy and bench record what they measure; --report names a report",
            path=str(opened.path),
        )
    _note_another(opened, which, newest[0])
    return _recorded(opened, newest[0], called="the newest run")


def _note_another(opened: History, which: RunFilter, newest: HistoryRun) -> None:
    """Say so where the run that is dated last was not recorded last: a clock was set back.

    What an import brought has no folder here, and may be of any date.
    """
    for run in opened.runs(which, limit=_LOOKED_AT, as_recorded=True):
        if run.id == newest.id:
            return
        if run.folder is not None:
            sys.stderr.write(
                f"note: run {newest.id[:12]} has the latest date and is judged, but run "
                f"{run.id[:12]} was recorded after it, dated earlier: judge that with --run\n"
            )
            return


def _reference(opened: History, ours: Measured, against: str) -> HistoryRun:
    """Find the newest run that is called so and comparable; the same precision goes first."""
    from edgesdk.bench.history import RunFilter
    from edgesdk.bench.history_values import run_id

    report = ours.report
    which = RunFilter(
        model=report.model.name,
        target=report.target.name,
        device=report.device.name,
        precision=report.bundle.precision,
        label=against,
        but=run_id(report),
        until=report.created,
    )
    alike = opened.runs(which, limit=1)
    if alike:
        return alike[0]
    return opened.resolve(against, replace(which, precision=None, label=None))


def _recorded(opened: History, run: HistoryRun, *, called: str) -> Measured:
    from edgesdk.report.read import parse_report

    data = opened.report(run.id)
    return Measured(
        called=called, report=parse_report(data, name=f"of run {run.id[:12]}"), run=run
    )


def look_twice(
    ours: Measured, theirs: Measured, second: Second, *, measure: bool
) -> tuple[list[Look], EdgeError | None]:
    """Look once, and again where that shows a regression; give what was in the way of that."""
    from edgesdk.bench.regression import first_look

    looks = []
    if not measure:
        looks.append(first_look(ours.report, theirs.report, limit=second.limit))
        if not looks[0].slower:
            return looks, None
        sys.stderr.write("note: a regression is suspected: it is measured again\n")
    try:
        looks += _on_device(ours, theirs, second, most=2 if measure else 1)
    except EdgeError as exc:
        if not looks:
            raise
        return looks, exc
    return looks, None


def _on_device(ours: Measured, theirs: Measured, second: Second, *, most: int) -> list[Look]:
    from edgesdk.bench.regression_again import look_again
    from edgesdk.cli.deltas import find_bases
    from edgesdk.cli.devicelink import find_device, note_wait, open_session
    from edgesdk.cli.progress import progress_bars
    from edgesdk.deploy.hold import hold_device

    settings = second.settings
    bundle = _bundle(settings, ours, second.bundle, option="--bundle")
    assert bundle is not None
    reference = _bundle(
        settings, theirs, second.reference_bundle, option="--reference-bundle", needed=False
    )
    device = second.device or find_device(settings, ours.report.device.name)
    looks: list[Look] = []
    with (
        open_session(settings, device) as session,
        hold_device(session, doing="gate", on_wait=note_wait),
        progress_bars() as on_progress,
    ):
        while len(looks) < most and all(look.slower for look in looks):
            looks.append(
                look_again(
                    session,
                    bundle,
                    reference,
                    report=ours.report,
                    reference=theirs.report,
                    limit=second.limit,
                    seconds=second.seconds,
                    seed=None if second.seed is None else second.seed + len(looks),
                    bases=find_bases(settings),
                    on_progress=on_progress,
                )
            )
    return looks


def _bundle(
    settings: Settings,
    measured: Measured,
    folder: Path | None,
    *,
    option: str,
    needed: bool = True,
) -> Bundle | None:
    """Find the bundle of a run on this computer."""
    from edgesdk.cli.runfolder import held_bundle

    return held_bundle(
        settings,
        measured.report.bundle.id,
        folder,
        option=option,
        needed=needed,
    )
