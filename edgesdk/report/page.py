"""The shell of a report page: one file, nothing loaded, readable on any screen.

The one script there may be sorts a table; its hash stands in the policy of the page, so nothing
else runs, and without it the table has the order it was written in.
"""

from __future__ import annotations

import base64
import hashlib
import html
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from edgesdk.report.drawing import Drawn
from edgesdk.report.styles import CSS
from edgesdk.report.summary import clean

__all__ = [
    "Cell",
    "escaped",
    "facts",
    "figure",
    "page",
    "section",
    "sentence",
    "sortable_table",
    "table",
]


def escaped(value: object, *, limit: int = 300) -> str:
    """Make text from anywhere safe between tags and inside double quotes."""
    return html.escape(clean(value, limit=limit), quote=True)


#: The class of tables that the script looks for.
_SORTABLE = ' class="stack sortable"'
#: What is not known stays at the end in both directions.
_SORT = """
for (const table of document.querySelectorAll("table.sortable")) {
  const body = table.tBodies[0], heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, place) => {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = head.textContent || "report";
    head.replaceChildren(button);
    button.addEventListener("click", () => {
      const rising = head.getAttribute("aria-sort") !== "ascending";
      heads.forEach(other => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", rising ? "ascending" : "descending");
      const rows = [...body.rows], cell = row => row.cells[place];
      const counts = rows.some(row => "sort" in cell(row).dataset);
      const key = row => counts
        ? ("sort" in cell(row).dataset ? Number(cell(row).dataset.sort) : null)
        : cell(row).textContent;
      const compare = (a, b) => counts ? a - b : a.localeCompare(b);
      rows.sort((one, other) => {
        const a = key(one), b = key(other);
        if (a === null || b === null) return (a === null) - (b === null);
        return rising ? compare(a, b) : compare(b, a);
      });
      body.replaceChildren(...rows);
    });
  });
}
"""
#: A longer word is broken across lines: bundle ids and names of runtimes are shorter.
_LONG_WORD = 28


def sentence(text: str) -> str:
    """Give text a capital and a full stop."""
    return f"{text[:1].upper()}{text[1:]}."


def page(title: str, body: str, *, made: str) -> str:
    """Give a whole document; ``body`` is markup, ``title`` and ``made`` are text."""
    policy = "default-src 'none'; style-src 'unsafe-inline'"
    script = ""
    if _SORTABLE in body:
        digest = base64.b64encode(hashlib.sha256(_SORT.encode()).digest()).decode()
        policy += f"; script-src 'sha256-{digest}'"
        script = f"<script>{_SORT}</script>\n"
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="color-scheme" content="light dark">\n'
        f"<title>{escaped(title)}</title>\n<style>{CSS}</style>\n</head>\n<body>\n"
        f"{body}\n<footer><p>{escaped(made)}</p></footer>\n{script}</body>\n</html>\n"
    )


def section(title: str, *content: str) -> str:
    """Give a titled section of markup, or nothing where there is no content."""
    kept = [piece for piece in content if piece]
    return f"<section>\n<h2>{escaped(title)}</h2>\n{''.join(kept)}</section>\n" if kept else ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """A cell of a table to sort.

    ``key`` is what to sort it by, the text where it is None; ``href`` is a place on the page.
    """

    text: str
    key: float | None = None
    href: str = ""

    def __str__(self) -> str:
        return self.text


def table(
    caption: str,
    head: Sequence[str],
    rows: Iterable[Sequence[object]],
    *,
    numbers: frozenset[int] = frozenset(),
    stack: bool = False,
) -> str:
    """Give a table of text; ``numbers`` are columns to align right; rows begin with a name.

    With ``stack`` each row becomes a block of its own on a narrow screen. Roles are written
    out: a browser drops those of table elements that are not displayed as a table.
    """
    kind = ' class="stack"' if stack else ""
    return _table(caption, head, rows, numbers=numbers, kind=kind)


def sortable_table(
    caption: str,
    head: Sequence[str],
    rows: Iterable[Sequence[Cell]],
    *,
    numbers: frozenset[int] = frozenset(),
) -> str:
    """Give a table, stacked on a narrow screen, that a click on a heading sorts."""
    return _table(caption, head, rows, numbers=numbers, kind=_SORTABLE)


def _table(
    caption: str,
    head: Sequence[str],
    rows: Iterable[Sequence[object]],
    *,
    numbers: frozenset[int],
    kind: str,
) -> str:
    def cell(tag: str, place: int, value: object, more: str) -> str:
        style = ' class="n"' if place in numbers else ""
        # a word is broken only where it is too long for a column
        if not style and max(map(len, str(value).split()), default=0) > _LONG_WORD:
            style = ' class="long"'
        elif isinstance(value, Cell) and not style and " " not in value.text:
            style = ' class="word"'
        text = escaped(value)
        if isinstance(value, Cell):
            if value.key is not None:
                more += f' data-sort="{value.key!r}"'
            if value.href:
                text = f'<a href="{escaped(value.href)}">{text}</a>'
        return f"<{tag}{more}{style}>{text}</{tag}>"

    def line(row: Sequence[object]) -> str:
        first = cell("th", 0, row[0], ' scope="row" role="rowheader"')
        cells = (
            cell("td", i, value, f' role="cell" data-label="{escaped(head[i])}"')
            for i, value in enumerate(row[1:], start=1)
        )
        return f'<tr role="row">{first}{"".join(cells)}</tr>'

    lines = [line(row) for row in rows]
    if not lines:
        return ""
    scope = ' scope="col" role="columnheader"'
    top = "".join(cell("th", i, name, scope) for i, name in enumerate(head))
    return (
        f'<div class="wide"><table role="table"{kind}><caption>{escaped(caption)}</caption>\n'
        f'<thead role="rowgroup"><tr role="row">{top}</tr></thead>\n'
        f'<tbody role="rowgroup">\n{chr(10).join(lines)}\n</tbody></table></div>\n'
    )


def figure(title: str, drawn: Drawn | None, *, says: str) -> str:
    """Give a plot with its title and caption; ``says`` is for those who do not see it."""
    if drawn is None:
        return ""
    note = ""
    if drawn.caption:
        note = f"<figcaption>{escaped(drawn.caption, limit=1500)}</figcaption>"
    return (
        f"<figure><h3>{escaped(title)}</h3>"
        f'<div role="img" aria-label="{escaped(says)}">{drawn.svg}</div>{note}</figure>\n'
    )


def facts(rows: Iterable[tuple[str, object]]) -> str:
    """Give a list of labelled facts; those that are None are left out."""
    lines = [
        f"<dt>{escaped(label)}</dt><dd>{escaped(value)}</dd>"
        for label, value in rows
        if value is not None
    ]
    return f'<dl class="facts">{"".join(lines)}</dl>\n' if lines else ""
