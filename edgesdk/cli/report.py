"""``edgesdk report``: show a report again, render it, or print the schema of its fields."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgesdk.cli.options import FormatOption
from edgesdk.cli.output import Format, Output, jsonable, wrap_text, write_json
from edgesdk.cli.progress import busy
from edgesdk.errors import InputError, OutputError

if TYPE_CHECKING:
    from edgesdk.bench.values import BenchmarkReport

__all__ = ["app", "show_outcome", "show_report"]

_SHOWN_OPS = 10
#: What is shown fits the smallest usual terminal.
_SCREEN_LINES = 24
#: From here on a table of a contest has room for all its columns.
_WIDE = 110

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command()
def report(
    reports: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="[REPORT]...",
            help="A report.json, the folder that deploy wrote, or one of several such folders.",
        ),
    ] = None,
    out_file: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE",
            help="Render all of them as one page: .html with plots, .md, or JUnit's .xml.",
        ),
    ] = None,
    everything: Annotated[
        bool, typer.Option("--all", help="Show every fact of each report.")
    ] = False,
    schema: Annotated[
        bool, typer.Option("--schema", help="Print the JSON Schema of report.json.")
    ] = False,
    fmt: FormatOption = Format.TEXT,
) -> None:
    """Show a report again, compare several, or explain their fields.

    Several are set side by side; with -o they become one page that compares them by model,
    device, precision and date. With --format json the document is the report itself, or a list
    of several.
    """
    from edgesdk.report.read import read_reports
    from edgesdk.report.several import reading_order

    if schema:
        _show_schema(fmt)
        return
    if not reports:
        raise InputError(
            "cannot show a report: none is named",
            hint="name a report.json or the folder that deploy wrote, or ask for --schema",
        )
    read = reading_order(read_reports(reports))
    out = Output("report" if len(read) == 1 else "report-list", fmt)
    if out_file is not None:
        with busy(f"draw {out_file.name}"):
            _render(read, out_file)
        out.note(f"wrote {out_file}")
    if out.json and len(read) == 1:
        record = jsonable(read[0])  # it names its own schema, which is this command's
        assert isinstance(record, dict)
        write_json(record)
    else:
        out.document({"reports": read})
    if len(read) > 1:
        _show_overview(out, read)
    if everything:
        for each in read:
            show_report(out, each)
    elif len(read) == 1:
        _show_story(out, read[0])


def _show_overview(out: Output, reports: list[BenchmarkReport]) -> None:
    """Set several side by side."""
    from edgesdk.report.overview import overview_table

    shown = overview_table(reports, brief=True)
    out.table(shown.columns, shown.rows, right=shown.columns[-5:-1])
    out.line()


def _show_story(out: Output, report: BenchmarkReport) -> None:
    """Show one report in a screenful."""
    bundle = report.bundle
    out.line(
        f"{report.model.name} {bundle.precision} for {report.target.name} on "
        f"{report.device.name} (bundle {bundle.id[:12]}, {report.created})\n"
    )
    show_outcome(out, report, [("more", "--all shows every fact, -o FILE.html draws a page")])


def show_report(out: Output, report: BenchmarkReport) -> None:
    """Show the main facts of a report to people."""
    from edgesdk.report.offload import offload_rows
    from edgesdk.report.summary import summary_rows

    rows = (*summary_rows(report), *offload_rows(report))
    out.pairs([(row.label, row.value) for row in rows])
    _show_offload(out, report)
    _show_contest(out, report)
    out.line()


def _show_offload(out: Output, report: BenchmarkReport) -> None:
    """Show what ran where, by backend and for the longest ops."""
    from edgesdk.report.offload import BACKEND_HEAD, OP_HEAD, backend_rows, op_rows

    offload = report.offload
    if offload is None or offload.why is not None:
        return
    out.line()
    out.table(BACKEND_HEAD, backend_rows(offload), right=("planned nodes", "ops"))
    out.line()
    out.table(OP_HEAD, op_rows(offload, _SHOWN_OPS))


def show_outcome(
    out: Output, report: BenchmarkReport, more: Iterable[tuple[str, object]] = ()
) -> None:
    """Show what a measurement found in a few lines; `show_report` has every fact.

    Args:
        out: Where to.
        report: What was found.
        more: What the command has to add, as `Output.pairs` takes it.
    """
    from edgesdk.report.headline import make_headline, remark_rows
    from edgesdk.report.story import story_rows

    headline = make_headline(report)
    out.table(headline.columns, headline.rows, right=headline.columns[1:-1])
    _show_contest(out, report, brief=True)
    out.line()
    ran, *remarks = remark_rows(report)
    trust = [row for row in remarks if row.label == "trust"]
    remarks = [row for row in remarks if row.label != "trust"]
    rows = [(row.label, row.value) for row in (ran, *trust, *story_rows(report), *remarks)]
    last = [(label, str(value)) for label, value in more if value is not None]
    contest = 0 if report.contest is None else len(report.contest.contestants) + 3
    out.pairs([*_fitting(out, rows, last, used=len(headline.rows) + contest + 7), *last])


def _fitting(
    out: Output, rows: list[tuple[str, str]], last: list[tuple[str, str]], *, used: int
) -> list[tuple[str, str]]:
    """Leave out what a terminal has no lines for, and say so; a pipe gets everything.

    Args:
        out: Where to.
        rows: What there is to say, the most telling first.
        last: What follows.
        used: Lines that are taken by what stands above.
    """
    if not out.people.isatty():
        return rows
    import shutil

    indent = 2 + max((len(label) for label, _ in (*rows, *last)), default=0)
    height = max(_SCREEN_LINES, shutil.get_terminal_size().lines)
    free = height - used - sum(_lines(value, indent) for _, value in last)
    kept: list[tuple[str, str]] = []
    for place, (label, value) in enumerate(rows):
        is_last = place == len(rows) - 1
        free -= _lines(value, indent)
        if free < (0 if is_last else 1):
            count = len(rows) - place
            kept.append(("left out", f"{count} more, for want of room; the report has them"))
            break
        kept.append((label, value))
    return kept


def _lines(text: str, indent: int) -> int:
    return wrap_text(text, indent=indent).count("\n") + 1


def _show_contest(out: Output, report: BenchmarkReport, *, brief: bool = False) -> None:
    """Show who competed, where the bundle was one of several.

    With ``brief`` a narrow terminal gets a line for each: name, median and outcome.
    """
    import shutil

    from edgesdk.report.contest import contest_table
    from edgesdk.report.summary import clean

    if report.contest is None:
        return
    shown = contest_table(report.contest)
    out.line()
    width = shutil.get_terminal_size().columns
    if not brief or width >= _WIDE or not out.people.isatty():
        out.table(shown.columns, shown.rows, right=shown.columns[1:-2])
        return
    rows = [(clean(row[0], limit=30), row[1], row[-1]) for row in shown.rows]
    room = width - max(len(row[0]) + len(row[1]) for row in rows) - 8
    head = (shown.columns[0], shown.columns[1], "")
    out.table(head, [(*row[:2], clean(row[2], limit=room)) for row in rows], right=(head[1],))


def _show_schema(fmt: Format) -> None:
    from edgesdk.report.schema import report_schema

    out = Output("report-schema", fmt)
    if out.json:
        out.document({"json_schema": report_schema()})
    else:
        write_json(report_schema())


def _render(reports: list[BenchmarkReport], path: Path) -> None:
    if path.suffix == ".md":
        from edgesdk.report.markdown import render_markdown

        text = render_markdown(reports)
    elif path.suffix in (".html", ".htm"):
        from edgesdk.report.html import render_html

        text = render_html(reports)
    elif path.suffix == ".xml":
        from edgesdk.report.junit import render_junit

        text = render_junit(reports)
    else:
        raise OutputError(
            f"cannot render a report to {path}: {path.suffix or 'no suffix'} "
            "(expected .html, .md or .xml)",
            hint="name a file such as report.html, report.md or report.xml",
            path=str(path),
        )
    try:
        path.write_text(text, encoding="utf-8", errors="replace")
    except OSError as exc:
        raise OutputError(
            f"cannot write {path}: {exc.strerror or exc}",
            hint="is there room, and may you write there?",
            path=str(path),
        ) from exc
