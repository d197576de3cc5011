"""Read what the compiler says of its work: which operators it mapped, and what memory it used.

Only lines of known form are read, so rubbish reads as an empty log and never as a wrong one.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ["CompilerLog", "LoggedStatus", "read_log"]

_MOST_LINES = 20_000
_UNITS = {"B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}
_MAPPED = "Mapped to Edge TPU"
_SIZES = {
    "On-chip memory used for caching model parameters": "cached_bytes",
    "On-chip memory remaining for caching model parameters": "free_bytes",
    "Off-chip memory used for streaming uncached model parameters": "streamed_bytes",
}
_COUNTS = {
    "Number of operations that will run on Edge TPU": "mapped",
    "Number of operations that will run on CPU": "left",
    "Total number of operations": "total",
    "Number of Edge TPU subgraphs": "subgraphs",
}
_VERSION = re.compile(r"^Edge TPU Compiler version ([0-9][0-9.]{0,40})$")
_ROW = re.compile(r"^([A-Z][A-Z0-9_]{0,63})\s+([0-9]{1,9})\s+(\S.{0,300})$")
_SIZE = re.compile(r"^([0-9]{1,9}(?:\.[0-9]{1,6})?)(B|KiB|MiB|GiB)$")


@dataclass(frozen=True, slots=True, kw_only=True)
class LoggedStatus:
    """A row of the table: how many operators of a kind have a status."""

    op: str
    count: int
    status: str

    @property
    def is_mapped(self) -> bool:
        """Whether these run on the Edge TPU."""
        return self.status == _MAPPED


@dataclass(frozen=True, slots=True, kw_only=True)
class CompilerLog:
    """The log. ``numbers`` are those of its lines, sizes in bytes; what it lacks is absent."""

    version: str
    numbers: Mapping[str, int]
    rows: tuple[LoggedStatus, ...]

    def to_json(self) -> dict[str, Any]:
        """Give it as plain data."""
        return {
            "version": self.version,
            **self.numbers,
            "ops": [
                {"op": row.op, "status": row.status, "count": row.count} for row in self.rows
            ],
        }


def read_log(text: str) -> CompilerLog:
    """Read what the compiler wrote, whatever else stands there."""
    version, rows = "", []
    numbers: dict[str, int] = {}
    for raw in text.splitlines()[:_MOST_LINES]:
        line = raw.strip()
        if (found := _VERSION.match(line)) is not None:
            version = found[1]
        elif (found := _ROW.match(line)) is not None:
            rows.append(LoggedStatus(op=found[1], count=int(found[2]), status=found[3].strip()))
        else:
            name, _, value = line.partition(":")
            value = value.strip()
            if name in _SIZES and (size := _SIZE.match(value)) is not None:
                numbers[_SIZES[name]] = int(float(size[1]) * _UNITS[size[2]])
            elif name in _COUNTS and value.isdecimal() and len(value) < 10:
                numbers[_COUNTS[name]] = int(value)
    return CompilerLog(version=version, numbers=numbers, rows=tuple(rows[:1000]))
