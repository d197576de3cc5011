"""Write ``report.json`` and ``report.html`` into a folder, each whole or not at all."""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

from edgesdk.bench.values import BenchmarkReport
from edgesdk.errors import OutputError
from edgesdk.report.html import render_html
from edgesdk.report.schema import report_adapter

__all__ = ["WrittenReport", "encode_report", "write_report"]


@dataclass(frozen=True, slots=True, kw_only=True)
class WrittenReport:
    """Where the two files lie."""

    json: Path
    html: Path


def encode_report(report: BenchmarkReport) -> bytes:
    """Give the bytes of ``report.json``: UTF-8, indented, ending in a newline."""
    return report_adapter().dump_json(report, indent=1) + b"\n"


def write_report(report: BenchmarkReport, folder: Path) -> WrittenReport:
    """Write both files into ``folder``, which is made if it is not there.

    Raises:
        OutputError: The folder cannot be made or written.
    """
    page = render_html([report]).encode("utf-8", "replace")
    written = WrittenReport(json=folder / "report.json", html=folder / "report.html")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _replace(written.json, encode_report(report))
        _replace(written.html, page)
    except OSError as exc:
        raise OutputError(
            f"cannot write report to {folder}: {exc.strerror or exc}",
            hint="is there room, and may you write there?",
            path=str(folder),
        ) from exc
    return written


def _replace(path: Path, data: bytes) -> None:
    """Put ``data`` at ``path`` so that nobody ever sees half of it."""
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    landing = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(data)
        landing.chmod(0o644)
        landing.replace(path)
    except BaseException:
        landing.unlink(missing_ok=True)
        raise
