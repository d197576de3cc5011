"""``edgesdk report``: show a report again, render it, or print the schema of its fields."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgesdk.cli.options import FormatOption
from edgesdk.cli.output import Format, Output, jsonable, write_json
from edgesdk.cli.progress import busy
from edgesdk.errors import InputError, OutputError

if TYPE_CHECKING:
    from edgesdk.bench.values import BenchmarkReport

__all__ = ["app", "show_outcome", "show_report"]

_SHOWN_OPS = 10

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command()
def report(
    reports: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="[REPORT]...", help="A report.json, or the folder that deploy wrote."
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
    schema: Annotated[
        bool, typer.Option("--schema", help="Print the JSON Schema of report.json.")
    ] = False,
    fmt: FormatOption = Format.TEXT,
) -> None:
    """Show a report again, or explain its fields.

    With --format json the document is the report itself, or a list of several.
    """
    from edgesdk.report.read import read_report

    if schema:
        _show_schema(fmt)
        return
    if not reports:
        raise InputError(
            "cannot show a report: none is named",
            hint="name a report.json or the folder that deploy wrote, or ask for --schema",
        )
    read = [read_report(path) for path in reports]
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
    for each in read:
        show_report(out, each)


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

    headline = make_headline(report)
    out.table(headline.columns, headline.rows, right=headline.columns[1:-1])
    _show_contest(out, report)
    out.line()
    out.pairs([*((row.label, row.value) for row in remark_rows(report)), *more])


def _show_contest(out: Output, report: BenchmarkReport) -> None:
    """Show who competed, where the bundle was one of several."""
    from edgesdk.report.contest import contest_table

    if report.contest is not None:
        shown = contest_table(report.contest)
        out.line()
        out.table(shown.columns, shown.rows, right=shown.columns[1:-2])


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
