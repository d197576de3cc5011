"""What `edgesdk gate` shows, and the files that it writes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from edgesdk.cli.output import Output, printable
from edgesdk.errors import OutputError

if TYPE_CHECKING:
    from edgesdk.bench.regression_values import GateResult

__all__ = ["require_suffix", "show_gate", "write_gate"]

_SUFFIXES = (".json", ".xml", ".md")


def require_suffix(path: Path) -> None:
    """Refuse a file of which nobody knows how to write it, before anything is measured.

    Raises:
        OutputError: Its name ends in no known suffix.
    """
    if path.suffix not in _SUFFIXES:
        raise OutputError(
            f"cannot write the result to {path}: {path.suffix or 'no suffix'} (expected "
            f"{', '.join(_SUFFIXES)})",
            hint="name a file such as gate.xml, gate.md or gate.json",
            path=str(path),
        )


def write_gate(result: GateResult, path: Path) -> None:
    """Write the result in the form that the file's name asks for.

    Raises:
        OutputError: It cannot be written.
    """
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


def show_gate(out: Output, result: GateResult) -> None:
    """Show both runs, every look and every limit; what failed is said on stderr, too."""
    from edgesdk.report.gate import LOOK_HEAD, look_rows, side_rows

    ours = result.ours
    out.line(f"{ours.model} on {ours.device}: {result.outcome}\n")
    out.table(("", "this", "reference"), side_rows(ours, result.theirs))
    out.line()
    out.table(
        LOOK_HEAD,
        look_rows(result.looks),
        right=("times as long",),
    )
    out.line()
    notes = [note for look in result.looks for note in look.notes]
    out.pairs(
        [
            *((check.name, check.text) for check in result.checks),
            *(("note", note) for note in dict.fromkeys(notes)),
            *(("differs", f"{d.name} is {d.ours}, was {d.theirs}") for d in result.differences),
        ]
    )
    if result.outcome == "failed":
        out.note(printable(f"failed: {result.text}"))
