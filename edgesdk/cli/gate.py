"""``edgesdk gate``: fail a build where a release became slower than a reference."""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgesdk.cli.options import FormatOption, InventoryOption
from edgesdk.cli.output import Format, Output, jsonable, printable, write_json
from edgesdk.cli.quantities import read_seconds, read_share
from edgesdk.errors import EXIT_FINDINGS, EdgeError, HistoryError, InputError, OutputError
from edgesdk.settings import Settings, resolve_settings

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edgesdk.bench.history import History, RunFilter
    from edgesdk.bench.history_values import HistoryRun
    from edgesdk.bench.regression_values import Difference, GateCheck, GateResult, Look
    from edgesdk.bench.values import BenchmarkReport
    from edgesdk.bundle.store import Bundle
    from edgesdk.devices.inventory import Device

__all__ = ["app"]

app = typer.Typer(add_completion=False, rich_markup_mode=None)

_SUFFIXES = (".json", ".xml", ".md")
_MOST_SECONDS = 3600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class _Measured:
    """A run that is compared: how it was found, its report, what the history knows of it."""

    called: str
    report: BenchmarkReport
    run: HistoryRun | None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Second:
    """How the second measurement is to be made."""

    settings: Settings
    device: Device | None
    limit: float
    seconds: float
    seed: int | None
    bundle: Path | None
    reference_bundle: Path | None


@app.command()
def gate(  # long, because every line of it is an option
    *,
    against: Annotated[
        str | None,
        typer.Option(
            "--against",
            metavar="WHAT",
            help="The reference: a label, branch, commit or id in the history, or a report.",
        ),
    ] = None,
    report: Annotated[
        Path | None,
        typer.Option(
            "--report",
            metavar="FILE",
            help="The measurement, as report.json or its folder. Default: the newest recorded.",
        ),
    ] = None,
    run: Annotated[
        str | None, typer.Option("--run", metavar="ID", help="The measurement, by its id.")
    ] = None,
    model: Annotated[
        str | None,
        typer.Option("--model", metavar="NAME", help="The newest measurement of this model."),
    ] = None,
    device: Annotated[
        str | None,
        typer.Option(
            "--device",
            "-d",
            metavar="DEVICE",
            help="The newest measurement on this device, which is also where a regression is "
            "confirmed. Default: the device of the measurement.",
        ),
    ] = None,
    max_regression: Annotated[
        str,
        typer.Option("--max-regression", metavar="2%", help="By how much it may be slower."),
    ] = "2%",
    max_accuracy_drop: Annotated[
        str | None,
        typer.Option(
            "--max-accuracy-drop",
            metavar="1%",
            help="How many points of a rate it may lose, or by how much an error may grow.",
        ),
    ] = None,
    max_memory_growth: Annotated[
        str | None,
        typer.Option(
            "--max-memory-growth", metavar="10%", help="By how much its peak memory may grow."
        ),
    ] = None,
    measure: Annotated[
        bool,
        typer.Option(
            "--measure",
            help="Measure both on the device at once, whatever was recorded of them.",
        ),
    ] = False,
    seconds: Annotated[
        str,
        typer.Option(
            "--seconds",
            metavar="10s",
            help="How long measuring in turns on the device may take.",
        ),
    ] = "10s",
    seed: Annotated[
        int | None,
        typer.Option(
            "--seed", min=0, max=2**32 - 1, metavar="N", help="Draws the order of the turns."
        ),
    ] = None,
    allow: Annotated[
        list[str] | None,
        typer.Option(
            "--allow",
            metavar="NAME",
            help="Compare although this circumstance differs, such as governor; repeatable.",
        ),
    ] = None,
    bundle: Annotated[
        Path | None,
        typer.Option(
            "--bundle",
            metavar="DIR",
            help="The bundle. Default: looked for in the runs folder.",
        ),
    ] = None,
    reference_bundle: Annotated[
        Path | None,
        typer.Option(
            "--reference-bundle",
            metavar="DIR",
            help="The reference's bundle. Default: looked for in the runs folder.",
        ),
    ] = None,
    out_files: Annotated[
        list[Path] | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE",
            help="Also write it: JUnit's .xml, .md or .json; repeatable.",
        ),
    ] = None,
    history: Annotated[
        Path | None,
        typer.Option(
            "--history", metavar="FILE", help="The history. Default: the setting 'history'."
        ),
    ] = None,
    inventory: InventoryOption = None,
    schema: Annotated[
        bool, typer.Option("--schema", help="Print the JSON Schema of the result.")
    ] = False,
    fmt: FormatOption = Format.TEXT,
) -> None:
    """Fail a build where a release became slower.

    The newest recorded measurement is held against the reference. A regression that is
    significantly larger than the bound is confirmed by a second measurement on the device,
    both bundles in turns, before it fails: then the exit code is 1, else 0. Where it cannot be
    confirmed, the code says what was in the way (2, 4 or 5).
    """
    from edgesdk.bench.regression_conditions import (
        check_allowed,
        find_differences,
        require_comparable,
    )

    if schema:
        _show_schema(fmt)
        return
    if against is None:
        raise InputError(
            "cannot gate: no reference is named",
            hint="name a label, a branch, an id or a report with --against; `edgesdk history` "
            "lists what is recorded",
        )
    out = Output("gate", fmt)
    settings = resolve_settings({"history": history, "inventory": inventory})
    limit = read_share(max_regression, option="--max-regression")
    accuracy = _limit(max_accuracy_drop, "--max-accuracy-drop")
    memory = _limit(max_memory_growth, "--max-memory-growth")
    allowed = check_allowed(allow or [])
    for path in out_files or []:
        _require_suffix(path)
    found = None
    if device is not None:
        from edgesdk.cli.devicelink import find_device

        found = find_device(settings, device)
    ours, theirs = _choose(
        settings,
        against=against,
        report=report,
        run=run,
        model=model,
        device=None if found is None else found.name,
    )
    differences = find_differences(ours.report, theirs.report)
    require_comparable(differences, allowed=allowed)
    second = _Second(
        settings=settings,
        device=found,
        limit=limit,
        seconds=read_seconds(seconds, option="--seconds", at_most_s=_MOST_SECONDS),
        seed=seed,
        bundle=bundle,
        reference_bundle=reference_bundle,
    )
    more = _more_checks(ours, theirs, accuracy=accuracy, memory=memory)
    looks, refused = _look(ours, theirs, second, measure=measure)
    result = _result(ours, theirs, differences, looks, more, limit=limit)
    for path in out_files or []:
        _write(result, path)
        out.note(f"wrote {path}")
    if refused is not None:
        raise _unconfirmed(refused, result)
    if out.json:
        record = jsonable(result)  # it names its own schema
        assert isinstance(record, dict)
        write_json(record)
    _show(out, result)
    if result.outcome == "failed":
        raise typer.Exit(EXIT_FINDINGS)


def _limit(text: str | None, option: str) -> float | None:
    return None if text is None else read_share(text, option=option)


def _show_schema(fmt: Format) -> None:
    from edgesdk.report.gate import gate_schema

    out = Output("gate-schema", fmt)
    if out.json:
        out.document({"json_schema": gate_schema()})
    else:
        write_json(gate_schema())


def _choose(
    settings: Settings,
    *,
    against: str,
    report: Path | None,
    run: str | None,
    model: str | None,
    device: str | None,
) -> tuple[_Measured, _Measured]:
    """Find the measurement and its reference.

    Raises:
        InputError: One of them cannot be found or read.
    """
    from edgesdk.bench.history import History, RunFilter
    from edgesdk.report.read import read_report
    from edgesdk.report.summary import clean

    if report is not None and run is not None:
        raise InputError(
            "cannot gate two measurements: --report and --run both name one",
            hint="leave one of them out",
        )
    is_file = _is_report(against)
    if report is not None and is_file:  # no history is needed, so none is opened
        ours = _Measured(called=str(report), report=read_report(report), run=None)
        return ours, _Measured(called=against, report=read_report(Path(against)), run=None)
    with History(settings.history) as opened:
        if report is not None:
            ours = _Measured(called=str(report), report=read_report(report), run=None)
        elif run is not None:
            found = opened.find(run)
            ours = _recorded(opened, found, called=f"run {found.id[:12]}")
        else:
            ours = _newest(opened, RunFilter(model=model, device=device))
        if is_file:
            return ours, _Measured(called=against, report=read_report(Path(against)), run=None)
        reference = _reference(opened, ours, against)
        return ours, _recorded(opened, reference, called=clean(against, limit=40))


def _newest(opened: History, which: RunFilter) -> _Measured:
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
    return _recorded(opened, newest[0], called="the newest run")


def _reference(opened: History, ours: _Measured, against: str) -> HistoryRun:
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


def _recorded(opened: History, run: HistoryRun, *, called: str) -> _Measured:
    from edgesdk.report.read import parse_report

    data = opened.report(run.id)
    return _Measured(
        called=called, report=parse_report(data, name=f"of run {run.id[:12]}"), run=run
    )


def _is_report(text: str) -> bool:
    path = Path(text)
    return path.suffix == ".json" or (path / "report.json").is_file()


def _more_checks(
    ours: _Measured, theirs: _Measured, *, accuracy: float | None, memory: float | None
) -> list[GateCheck]:
    from edgesdk.bench.regression import check_accuracy, check_memory

    checks = []
    if accuracy is not None:
        checks.append(check_accuracy(ours.report, theirs.report, limit=accuracy))
    if memory is not None:
        checks.append(check_memory(ours.report, theirs.report, limit=memory))
    return checks


def _look(
    ours: _Measured, theirs: _Measured, second: _Second, *, measure: bool
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


def _on_device(ours: _Measured, theirs: _Measured, second: _Second, *, most: int) -> list[Look]:
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
    measured: _Measured,
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
        recorded=None if measured.run is None else measured.run.folder,
    )


def _result(
    ours: _Measured,
    theirs: _Measured,
    differences: Sequence[Difference],
    looks: Sequence[Look],
    more: Sequence[GateCheck],
    *,
    limit: float,
) -> GateResult:
    from edgesdk.bench.regression import check_latency, make_gate, side_of

    return make_gate(
        ours=side_of(ours.report, called=ours.called, run=ours.run),
        theirs=side_of(theirs.report, called=theirs.called, run=theirs.run),
        differences=differences,
        looks=looks,
        checks=[check_latency(looks, limit=limit), *more],
    )


def _require_suffix(path: Path) -> None:
    if path.suffix not in _SUFFIXES:
        raise OutputError(
            f"cannot write the result to {path}: {path.suffix or 'no suffix'} (expected "
            f"{', '.join(_SUFFIXES)})",
            hint="name a file such as gate.xml, gate.md or gate.json",
            path=str(path),
        )


def _write(result: GateResult, path: Path) -> None:
    from edgesdk.report.gate import encode_gate, render_gate_junit, render_gate_markdown

    if path.suffix == ".xml":
        data = render_gate_junit(result).encode("utf-8", "replace")
    elif path.suffix == ".md":
        data = render_gate_markdown(result).encode("utf-8", "replace")
    else:
        data = encode_gate(result)
    try:
        path.write_bytes(data)
    except OSError as exc:
        raise OutputError(
            f"cannot write {path}: {exc.strerror or exc}",
            hint="is there room, and may you write there?",
            path=str(path),
        ) from exc


def _unconfirmed(refused: EdgeError, result: GateResult) -> EdgeError:
    """Say that the second measurement failed, in the class of error that it failed with."""
    return type(refused)(
        f"cannot confirm a regression that is suspected ({result.text}): {refused}",
        hint=refused.hint
        or "name the device with --device, the bundles with --bundle and --reference-bundle",
        **{**refused.facts, "gate": jsonable(result)},
    )


def _show(out: Output, result: GateResult) -> None:
    from edgesdk.report.gate import look_rows, side_rows

    ours = result.ours
    out.line(f"{ours.model} on {ours.device}: {result.outcome}\n")
    out.table(("", "this", "reference"), side_rows(ours, result.theirs))
    out.line()
    out.table(
        ("look", "times as long", "95 % interval", "saw"),
        look_rows(result.looks),
        right=("times as long",),
    )
    out.line()
    for check in result.checks:
        out.pairs([(check.name, check.text)])
    notes = [note for look in result.looks for note in look.notes]
    out.pairs([("note", note) for note in dict.fromkeys(notes)])
    for each in result.differences:
        out.pairs([("differs", f"{each.name} is {each.ours}, was {each.theirs}")])
    if result.outcome == "failed":
        out.note(printable(f"failed: {result.text}"))
