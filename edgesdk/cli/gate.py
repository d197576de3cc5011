"""``edgesdk gate``: fail a build where a release became slower than a reference."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgesdk.cli.gateshow import require_suffix, show_gate, write_gate
from edgesdk.cli.gatesides import Measured, Second, choose_sides, look_twice
from edgesdk.cli.options import FormatOption, InventoryOption
from edgesdk.cli.output import Format, Output, jsonable, write_json
from edgesdk.cli.quantities import read_seconds, read_share
from edgesdk.errors import EXIT_FINDINGS, EdgeError, InputError
from edgesdk.settings import resolve_settings

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edgesdk.bench.regression_values import Difference, GateCheck, GateResult, Look

__all__ = ["app"]

app = typer.Typer(add_completion=False, rich_markup_mode=None)

_LEAST_SECONDS, _MOST_SECONDS = 1.0, 3600.0


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
            help="How long measuring in turns on the device may take; three times as long is "
            "added where that is too coarse.",
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
        require_whole,
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
    limit = read_share(max_regression, option="--max-regression", ends=True)
    accuracy = _limit(max_accuracy_drop, "--max-accuracy-drop")
    memory = _limit(max_memory_growth, "--max-memory-growth")
    allowed = check_allowed(allow or [])
    for path in out_files or []:
        require_suffix(path)
    found = None
    if device is not None:
        from edgesdk.cli.devicelink import find_device

        found = find_device(settings, device)
    ours, theirs = choose_sides(
        settings,
        against=against,
        report=report,
        run=run,
        model=model,
        device=None if found is None else found.name,
    )
    for side in (ours, theirs):
        require_whole(side.report, called=side.called)
    differences = find_differences(ours.report, theirs.report)
    require_comparable(differences, allowed=allowed)
    second = Second(
        settings=settings,
        device=found,
        limit=limit,
        seconds=_read_span(seconds),
        seed=seed,
        bundle=bundle,
        reference_bundle=reference_bundle,
    )
    more = _more_checks(ours, theirs, accuracy=accuracy, memory=memory)
    looks, refused = look_twice(ours, theirs, second, measure=measure)
    result = _result(ours, theirs, differences, looks, more, limit=limit)
    for path in out_files or []:
        write_gate(result, path)
        out.note(f"wrote {path}")
    if refused is not None:
        raise _unconfirmed(refused, result)
    if out.json:
        record = jsonable(result)  # it names its own schema
        assert isinstance(record, dict)
        write_json(record)
    show_gate(out, result)
    if result.outcome == "failed":
        raise typer.Exit(EXIT_FINDINGS)


def _read_span(text: str) -> float:
    """Read how long measuring in turns may take."""
    span_s = read_seconds(text, option="--seconds", at_most_s=_MOST_SECONDS)
    if span_s < _LEAST_SECONDS:
        raise InputError(
            f"cannot use --seconds {text!r}: that is too short to load two releases in",
            hint="10s show a difference of a few per cent on a quiet device",
            option="--seconds",
            value=text,
        )
    return span_s


def _limit(text: str | None, option: str) -> float | None:
    return None if text is None else read_share(text, option=option, ends=True)


def _show_schema(fmt: Format) -> None:
    from edgesdk.report.gate import gate_schema

    out = Output("gate-schema", fmt)
    if out.json:
        out.document({"json_schema": gate_schema()})
    else:
        write_json(gate_schema())


def _more_checks(
    ours: Measured, theirs: Measured, *, accuracy: float | None, memory: float | None
) -> list[GateCheck]:
    from edgesdk.bench.regression import check_accuracy, check_memory

    checks = []
    if accuracy is not None:
        checks.append(check_accuracy(ours.report, theirs.report, limit=accuracy))
    if memory is not None:
        checks.append(check_memory(ours.report, theirs.report, limit=memory))
    return checks


def _result(
    ours: Measured,
    theirs: Measured,
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


def _unconfirmed(refused: EdgeError, result: GateResult) -> EdgeError:
    """Say that the second measurement failed, in the class of error that it failed with."""
    return type(refused)(
        f"cannot confirm a regression that is suspected ({result.text}): {refused}",
        hint=refused.hint
        or "name the device with --device, the bundles with --bundle and --reference-bundle",
        **{**refused.facts, "gate": jsonable(result)},
    )
