"""``edgesdk history``: what was measured, with what changed from one time to the next."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from typer.core import TyperGroup

from edgesdk.cli.history_rows import COLUMNS, run_record, run_row
from edgesdk.cli.options import FormatOption
from edgesdk.cli.output import Format, Output
from edgesdk.cli.progress import busy
from edgesdk.errors import HistoryError, InputError, OutputError
from edgesdk.near import suggest
from edgesdk.settings import resolve_settings

if TYPE_CHECKING:
    from typing import Any

    from edgesdk.bench.history import History, RunFilter
    from edgesdk.bench.history_values import HistoryRun

__all__ = ["app"]

_LIST = "list"


class _ListByDefault(TyperGroup):
    """A group in which a first word that is no subcommand is the model to list."""

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[Any, Any, list[str]]:
        """Put ``list`` before a word, or an option, that is no subcommand."""
        if args and args[0] not in self.commands:
            args = [_LIST, *args]
        return super().resolve_command(ctx, args)

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """List where nothing is said, or an option of the list comes first."""
        if not args or (args[0].startswith("-") and args[0] != "--help"):
            args = [_LIST, *args]
        return super().parse_args(ctx, args)


app = typer.Typer(
    cls=_ListByDefault, add_completion=False, rich_markup_mode=None, no_args_is_help=False
)

HistoryOption = Annotated[
    Path | None,
    typer.Option(
        "--history", metavar="FILE", help="The history. Default: the setting 'history'."
    ),
]
RunArgument = Annotated[
    str, typer.Argument(metavar="RUN", help="The id of a run, or enough of its digits.")
]
ModelOption = Annotated[
    str | None, typer.Option("--model", metavar="NAME", help="Only runs of this model.")
]
TargetFilter = Annotated[
    str | None, typer.Option("--target", "-t", metavar="NAME", help="Only for this target.")
]
DeviceFilter = Annotated[
    str | None, typer.Option("--device", "-d", metavar="NAME", help="Only on this device.")
]
PrecisionFilter = Annotated[
    str | None, typer.Option("--precision", metavar="P", help="Only of this precision.")
]
LabelFilter = Annotated[
    str | None,
    typer.Option(
        "--label", metavar="NAME", help="Only with this label, or of this branch or commit."
    ),
]


@app.callback()
def _history() -> None:
    """List, label, export and import what was measured.

    A word that is no command is the model to list: 'edgesdk history mobilenet --limit 5'.
    """


@app.command(_LIST)
def list_runs(
    *,
    model: Annotated[
        str | None, typer.Argument(metavar="[MODEL]", help="Only runs of this model.")
    ] = None,
    target: TargetFilter = None,
    device: DeviceFilter = None,
    precision: PrecisionFilter = None,
    label: LabelFilter = None,
    limit: Annotated[
        int,
        typer.Option(
            "--limit", min=1, max=1_000_000, metavar="N", help="At most so many, newest first."
        ),
    ] = 20,
    history: HistoryOption = None,
    fmt: FormatOption = Format.TEXT,
) -> None:
    """List what was measured, newest first; this is the default.

    The change is against the run before of the same model, target, device, precision and
    conditions; it is claimed only where the intervals of the two medians do not overlap.
    """
    from edgesdk.bench.history import RunFilter

    out = Output("history", fmt)
    which = RunFilter(
        model=model, target=target, device=device, precision=precision, label=label
    )
    path = resolve_settings({"history": history}).history
    runs: list[HistoryRun] = []
    known: tuple[str, ...] = ()
    if path.exists():  # reading makes no file
        with _open(path) as opened:
            runs = opened.runs(which, limit=limit)
            known = () if runs else opened.models()
    out.document({"file": path, "runs": [run_record(run) for run in runs]})
    if runs:
        out.table(
            COLUMNS,
            [run_row(run) for run in runs],
            right=("p50", "95 % interval", "change"),
        )
    elif not known:
        out.note(f"nothing is recorded in {path}; edgesdk deploy and bench record")
    else:
        near = suggest(model, known) if model and model not in known else ""
        out.note(f"no recorded run is like that; {near or 'models: ' + ', '.join(known[:20])}")


@app.command()
def show(
    run: RunArgument, history: HistoryOption = None, fmt: FormatOption = Format.TEXT
) -> None:
    """Show a run: where the work stood, and all facts of its report."""
    from edgesdk.cli.report import show_report
    from edgesdk.report.read import parse_report

    out = Output("history-run", fmt)
    with _open(history) as opened:
        found = opened.find(run)
        report = parse_report(opened.report(found.id), name=f"of run {found.id[:12]}")
    out.document({"run": run_record(found), "report": report})
    out.pairs(
        [
            ("run", found.id),
            ("when", found.created),
            ("labels", ", ".join(found.labels) or None),
            ("branch", found.provenance.branch),
            ("commit", found.provenance.commit),
        ]
    )
    show_report(out, report)


@app.command()
def label(
    run: RunArgument,
    labels: Annotated[list[str], typer.Argument(metavar="LABEL...", help="What to call it.")],
    remove: Annotated[
        bool, typer.Option("--remove", help="Take these labels away instead.")
    ] = False,
    history: HistoryOption = None,
    fmt: FormatOption = Format.TEXT,
) -> None:
    """Call a run something, or take a label away."""
    out = Output("history-run", fmt)
    with _open(history) as opened:
        found = opened.find(run)
        with opened.writing():
            for each in labels:
                if remove:
                    opened.unlabel(found.id, each)
                else:
                    opened.label(found.id, each)
        found = opened.find(found.id)
    out.document({"run": run_record(found)})
    out.line(f"{found.id[:12]} is called {', '.join(found.labels) or 'nothing'}")


@app.command()
def remove(
    runs: Annotated[
        list[str], typer.Argument(metavar="RUN...", help="Ids, or enough of their digits.")
    ],
    history: HistoryOption = None,
    fmt: FormatOption = Format.TEXT,
) -> None:
    """Forget runs; their reports in the runs folder stay."""
    out = Output("history-remove", fmt)
    with _open(history) as opened:
        found = [opened.find(each) for each in runs]
        with opened.writing():
            for each in found:
                opened.remove(each.id)
    out.document({"removed": [each.id for each in found]})
    out.line(f"removed {', '.join(each.id[:12] for each in found)}")


@app.command()
def export(
    *,
    out_file: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FILE", help="Where to. Default: stdout."),
    ] = None,
    model: ModelOption = None,
    target: TargetFilter = None,
    device: DeviceFilter = None,
    precision: PrecisionFilter = None,
    label: LabelFilter = None,
    history: HistoryOption = None,
    fmt: FormatOption = Format.TEXT,
) -> None:
    """Write runs as JSON lines, oldest first.

    With --format json, which needs --output, the document says how many.
    """
    from edgesdk.bench.history import RunFilter

    out = Output("history-export", fmt)
    if out.json and out_file is None:
        raise InputError(
            "cannot export to stdout with --format json: the runs go there",
            hint="name a file with --output, or leave --format out",
        )
    which = RunFilter(
        model=model, target=target, device=device, precision=precision, label=label
    )
    with _open(history) as opened:
        count = _export(opened, which, out_file)
    out.document({"file": out_file, "runs": count})
    out.note(f"wrote {count} runs{f' to {out_file}' if out_file else ''}")


def _export(opened: History, which: RunFilter, out_file: Path | None) -> int:
    from edgesdk.bench.history_lines import export_lines

    count = 0
    try:
        stream = sys.stdout.buffer if out_file is None else out_file.open("wb")
        try:
            for line in export_lines(opened, which):
                stream.write(line)
                count += 1
        finally:
            if out_file is None:
                stream.flush()
            else:
                stream.close()
    except OSError as exc:
        raise OutputError(
            f"cannot write {out_file or 'to stdout'}: {exc.strerror or exc}",
            hint="is there room, and may you write there?",
            path=str(out_file),
        ) from exc
    return count


@app.command("import")
def import_runs(
    files: Annotated[
        list[Path],
        typer.Argument(
            metavar="FILE...",
            help="Exports (.jsonl), a report.json, or the folder that deploy wrote.",
        ),
    ],
    label: Annotated[
        list[str] | None,
        typer.Option("--label", metavar="NAME", help="Call every imported run this."),
    ] = None,
    history: HistoryOption = None,
    fmt: FormatOption = Format.TEXT,
) -> None:
    """Take in runs of an export, or reports.

    What is there already is left out. Nothing is taken in where anything in any of the files
    is wrong.
    """
    from edgesdk.bench.history_values import check_label

    out = Output("history-import", fmt)
    labels = [check_label(each) for each in label or []]
    added: list[str] = []
    known = 0
    with _open(history, make=True) as opened, opened.writing():
        for path in files:
            with busy(f"import {path.name}"):
                more, there = _import(opened, path, labels)
            added += more
            known += there
    out.document({"file": opened.path, "added": added, "known": known})
    out.line(f"{len(added)} runs are new, {known} were there already")


def _import(opened: History, path: Path, labels: list[str]) -> tuple[list[str], int]:
    from edgesdk.bench.history_lines import import_lines
    from edgesdk.bench.history_values import describe_run
    from edgesdk.report.files import encode_report
    from edgesdk.report.read import parse_report, read_report

    if path.is_dir() or path.suffix == ".json":
        report = read_report(path)
        if not report.latency.samples_ms:
            raise HistoryError(
                f"cannot import {path}: it holds no latency sample",
                hint="reports of `edgesdk bench`, and of `deploy` without --no-bench, do",
                path=str(path),
            )
        run = describe_run(report, labels=labels)
        return ([run.id], 0) if opened.add(run, encode_report(report)) else ([], 1)
    try:
        with path.open("rb") as stream:
            done = import_lines(opened, stream, name=str(path), parse_report=parse_report)
    except OSError as exc:
        raise HistoryError(
            f"cannot import {path}: {exc.strerror or exc}",
            hint="name a file that edgesdk history export wrote, or a report.json",
            path=str(path),
        ) from exc
    for run_id in (*done.added, *done.there):
        opened.label(run_id, *labels)
    return list(done.added), len(done.there)


def _open(path: Path | None, *, make: bool = False) -> History:
    """Open the history that was named, or that of the settings."""
    from edgesdk.bench.history import History

    return History(resolve_settings({"history": path}).history, make=make)
