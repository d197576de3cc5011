"""Render reports as Markdown: several side by side, then the main facts of each."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from edgesdk.bench.values import BenchmarkReport
from edgesdk.report.contest import contest_table
from edgesdk.report.offload import BACKEND_HEAD, OP_HEAD, backend_rows, offload_rows, op_rows
from edgesdk.report.overview import overview_table
from edgesdk.report.story import story_rows
from edgesdk.report.summary import clean, summary_rows

__all__ = ["escape_markdown", "markdown_table", "render_markdown"]

_OPS = 10


def render_markdown(reports: Sequence[BenchmarkReport]) -> str:
    """Render the facts of each report as Markdown tables."""
    lines = []
    if len(reports) > 1:
        shown = overview_table(reports)
        lines += ["## Side by side", "", *markdown_table(shown.columns, shown.rows)]
    for report in reports:
        title = f"{clean(report.model.name)} on {clean(report.device.name)}"
        rows = [
            (row.label, row.value)
            for row in (*summary_rows(report), *story_rows(report), *offload_rows(report))
        ]
        lines += [f"## {escape_markdown(title)}", "", *markdown_table(("", ""), rows)]
        if report.contest is not None:
            shown = contest_table(report.contest)
            lines += ["### Contest", "", *markdown_table(shown.columns, shown.rows)]
        offload = report.offload
        if offload is not None and offload.why is None:
            lines += [
                "### By backend",
                "",
                *markdown_table(BACKEND_HEAD, backend_rows(offload)),
            ]
            lines += ["### Longest ops", "", *markdown_table(OP_HEAD, op_rows(offload, _OPS))]
    return "\n".join(lines)


def markdown_table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Give the lines of a table, and an empty one after it; cells may hold anything."""
    return [
        _line([escape_markdown(clean(name)) for name in head]),
        f"|{'---|' * len(head)}",
        *(_line([escape_markdown(clean(cell)) for cell in row]) for row in rows),
        "",
    ]


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |" if any(cells) else f"|{' |' * len(cells)}"


def escape_markdown(text: str) -> str:
    """Make text from anywhere mean nothing but itself."""
    for character in "\\`*_[]<>|#~&":
        text = text.replace(character, f"\\{character}")
    # addresses become links without any mark, where nothing stands in between
    return text.replace("://", "\\://").replace("www.", "www\\.")
