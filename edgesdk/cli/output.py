"""How values reach a screen, a pipe or a script.

With ``--format json`` one document goes to stdout and everything for people to stderr.
Otherwise people get Rich tables on a terminal, and the same rows as aligned text in a pipe.
All text may come from a model, a file or a device, so control characters never reach the
terminal and nothing is read as markup.
"""

from __future__ import annotations

import dataclasses
import enum
import json
import math
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import PurePath
from typing import Literal, TextIO

__all__ = ["Format", "Output", "jsonable", "printable", "size_text", "wrap_text", "write_json"]


class Format(enum.StrEnum):
    """For whom a command writes."""

    TEXT = "text"
    JSON = "json"


class Output:
    """Shows what one command has to say, in the format that was asked for.

    Args:
        verb: The command; names the schema of its JSON document, ``edgesdk.<verb>/1``.
        fmt: For whom to write.
    """

    def __init__(self, verb: str, fmt: Format) -> None:
        self.verb = verb
        self.json = fmt is Format.JSON

    @property
    def people(self) -> TextIO:
        """Where text for people goes: stdout, or stderr when stdout is for JSON."""
        return sys.stderr if self.json else sys.stdout

    def document(self, content: Mapping[str, object]) -> None:
        """Write the one JSON document, if JSON was asked for."""
        if self.json:
            write_json({"schema": f"edgesdk.{self.verb}/1", **content})

    def line(self, text: str = "") -> None:
        """Show one line or paragraph, when people read."""
        if not self.json:
            self.people.write(self._wrapped(printable(text), indent=0) + "\n")

    def note(self, text: str) -> None:
        """Show a remark on stderr, in both formats."""
        sys.stderr.write(printable(text) + "\n")
        sys.stderr.flush()

    def pairs(self, rows: Iterable[tuple[str, object]], title: str = "") -> None:
        """Show names and values, one a line; values that are None are left out."""
        shown = [(name, printable(str(value))) for name, value in rows if value is not None]
        if self.json or not shown:
            return
        if title:
            self.line(title)
        width = max(len(name) for name, _ in shown)
        for name, value in shown:
            first, *rest = self._wrapped(value, indent=width + 2).splitlines() or [""]
            self.line(f"{name:<{width}}  {first}".rstrip())
            for more in rest:
                self.line(" " * (width + 2) + more)

    def _wrapped(self, text: str, *, indent: int) -> str:
        return wrap_text(text, indent=indent) if self.people.isatty() else text

    def table(
        self,
        columns: Sequence[str],
        rows: Iterable[Sequence[object]],
        *,
        title: str = "",
        right: Iterable[str] = (),
    ) -> None:
        """Show rows, when people read. Columns named in ``right`` are aligned to the right."""
        if self.json:
            return
        cells = [
            [printable("" if cell is None else str(cell)).replace("\n", " ") for cell in row]
            for row in rows
        ]
        if self.people.isatty():
            _rich_table(columns, cells, title=title, right=frozenset(right), file=self.people)
            return
        if title:
            self.line(title)
        widths = [
            max(len(text) for text in column) for column in zip(columns, *cells, strict=True)
        ]
        for row in [list(columns), *cells]:
            texts = [
                text.rjust(width) if name in right else text.ljust(width)
                for name, text, width in zip(columns, row, widths, strict=True)
            ]
            self.line("  ".join(texts).rstrip())


def _rich_table(
    columns: Sequence[str],
    rows: Iterable[Sequence[str]],
    *,
    title: str,
    right: frozenset[str],
    file: TextIO,
) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(
        title=title or None,
        title_justify="left",
        box=SIMPLE_HEAD,
        show_edge=False,
        pad_edge=False,
    )
    for index, name in enumerate(columns):
        side: Literal["left", "right"] = "right" if name in right else "left"
        # the first column names things, and names are there to be copied
        table.add_column(name, justify=side, overflow="fold", no_wrap=index == 0)
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    Console(file=file).print(table)


def write_json(content: Mapping[str, object]) -> None:
    """Write one JSON document to stdout."""
    text = json.dumps(jsonable(content), indent=2, allow_nan=False)
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def jsonable(value: object) -> object:
    """Turn a value into what JSON can hold: paths as text, NaN and infinity as null."""
    result: object = str(value)
    if value is None or (isinstance(value, bool | str) and not isinstance(value, enum.Enum)):
        result = value
    elif isinstance(value, enum.Enum):
        result = jsonable(value.value)
    elif isinstance(value, int):
        result = int(value)
    elif isinstance(value, float):
        result = float(value) if math.isfinite(value) else None
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = dataclasses.fields(value)
        result = {each.name: jsonable(getattr(value, each.name)) for each in fields}
    elif isinstance(value, Mapping):
        result = {str(key): jsonable(each) for key, each in value.items()}
    elif isinstance(value, bytes | PurePath):
        result = value.hex() if isinstance(value, bytes) else str(value)
    elif hasattr(value, "tolist"):  # numpy's scalars and arrays
        result = jsonable(value.tolist())
    elif isinstance(value, set | frozenset):
        result = [jsonable(each) for each in sorted(value, key=str)]
    elif isinstance(value, Iterable):
        result = [jsonable(each) for each in value]
    return result


def printable(text: str) -> str:
    """Make text from anywhere safe for a terminal: control characters become escapes.

    Line breaks and tabs stay.
    """
    if text.isascii() and text.isprintable():
        return text
    kept = "".join(
        char
        if char.isprintable() or char in "\n\t"
        else char.encode("unicode_escape").decode("ascii")
        for char in text
    )
    return kept.encode("utf-8", "backslashreplace").decode("utf-8")


def wrap_text(text: str, *, indent: int = 0) -> str:
    """Break lines at spaces so that they fit the terminal beside ``indent`` columns.

    What stands between backticks or quotes is there to be copied: it stays whole.
    """
    import shutil
    import textwrap

    held = re.sub(r"`[^`\n]*`|'[^'\n]*'", lambda found: found[0].replace(" ", "\0"), text)
    width = max(30, shutil.get_terminal_size().columns - indent)
    lines = [
        textwrap.fill(line, width, break_long_words=False, break_on_hyphens=False)
        for line in held.split("\n")
    ]
    return "\n".join(lines).replace("\0", " ")


def size_text(size_bytes: float | None) -> str:
    """Say a size as reports do: ``4.5 MiB``."""
    if size_bytes is None:
        return "unknown"
    size = float(size_bytes)
    if abs(size) < 1024:
        return f"{size:.0f} B"
    for unit in ("KiB", "MiB", "GiB"):
        size /= 1024
        if abs(size) < 1024:
            return f"{size:.1f} {unit}"
    return f"{size / 1024:.1f} TiB"
