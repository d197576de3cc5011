"""Bring measurements out of a history and into another: one JSON object a line.

Each line stands for itself: ``schema``, the labels, where the work stood, and the report as
``report.json`` has it. A line comes from anywhere and is checked as a report file is; either
all lines of an import are taken, or none.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, BinaryIO, NoReturn

from edgesdk.bench.history import MAX_PACKED_BYTES, History, RunFilter
from edgesdk.bench.history_values import (
    MAX_LABELS,
    HistoryRun,
    Provenance,
    check_label,
    describe_run,
)
from edgesdk.bench.values import BenchmarkReport
from edgesdk.errors import HistoryError, ReportError

__all__ = [
    "LINE_SCHEMA",
    "MAX_LINES",
    "MAX_LINE_BYTES",
    "ImportedRuns",
    "export_lines",
    "import_lines",
    "parse_line",
]

LINE_SCHEMA = "edgesdk.history-line/1"
#: A line holds one report, and little more.
MAX_LINE_BYTES = MAX_PACKED_BYTES + (64 << 10)
MAX_LINES = 100_000
#: Those of a report, by `edgesdk.report.read`, with the line's own: each takes far more memory
#: than its two characters.
_MAX_CONTAINERS = 200_002
_MAX_TOTAL_BYTES = 4 << 30
_FIELDS = frozenset({"schema", "labels", "branch", "commit", "report"})
_COMMIT = re.compile(r"[0-9a-f]{40}([0-9a-f]{24})?")
#: Reads and checks the bytes of a report, as `edgesdk.report.read.parse_report` does.
ParseReport = Callable[..., BenchmarkReport]


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportedRuns:
    """What an import brought: ids of runs that were not there, and of those that were."""

    added: tuple[str, ...]
    there: tuple[str, ...]


def export_lines(history: History, which: RunFilter | None = None) -> Iterator[bytes]:
    """Give one line for each run, oldest first, ending in a newline.

    Raises:
        HistoryError: A report in the history is damaged.
    """
    for run in reversed(history.runs(which)):
        document: dict[str, object] = {
            "schema": LINE_SCHEMA,
            "labels": list(run.labels),
            "branch": run.provenance.branch,
            "commit": run.provenance.commit,
        }
        try:
            document["report"] = json.loads(history.report(run.id))
            text = json.dumps(document, separators=(",", ":"), allow_nan=False)
        except (ValueError, RecursionError) as exc:
            raise HistoryError(
                f"cannot export run {run.id[:12]} from history {history.path}: its report is "
                "damaged",
                hint=f"`edgesdk history remove {run.id[:12]}` drops it; the runs folder may "
                "still have it",
                run=run.id,
            ) from exc
        yield text.encode("ascii") + b"\n"


def import_lines(
    history: History, stream: BinaryIO, *, name: str, parse_report: ParseReport
) -> ImportedRuns:
    """Add the runs of an export to ``history``: all of them, or none.

    Args:
        history: Where to.
        stream: The lines.
        name: What the file is called, for messages.
        parse_report: Checks a report, as `edgesdk.report.read.parse_report` does.

    Raises:
        HistoryError: A line is too long, no JSON, of another schema, or holds no sound report;
            the message has its number.
    """
    added: list[str] = []
    there: list[str] = []
    with history.writing():
        for number, line in _lines(stream, name):
            run, report = parse_line(
                line, name=f"{name}, line {number}", parse_report=parse_report
            )
            if history.add(run, report):
                added.append(run.id)
            else:
                there.append(run.id)
    if not added and not there:
        raise _refusal(name, "it holds no line", "edgesdk history export writes such files")
    return ImportedRuns(added=tuple(added), there=tuple(there))


def parse_line(
    line: bytes, *, name: str, parse_report: ParseReport
) -> tuple[HistoryRun, bytes]:
    """Check one line; give its run and the bytes of its report.

    Raises:
        HistoryError: Something in it is wrong.
    """
    if line.count(b"[") + line.count(b"{") > _MAX_CONTAINERS:
        raise _refusal(name, f"it holds more than {_MAX_CONTAINERS} lists and objects")
    try:
        # the report is checked by itself, with the limits of a report file
        document = json.loads(line.decode("utf-8"), parse_constant=_refuse_constant)
    except RecursionError:
        raise _refusal(name, "it is nested too deeply") from None
    except ValueError as exc:
        raise _refusal(name, f"it is not JSON: {exc}") from exc
    if not isinstance(document, dict) or document.get("schema") != LINE_SCHEMA:
        found = document.get("schema") if isinstance(document, dict) else None
        raise _refusal(
            name,
            f"its schema is {ascii(found)[:80]} (expected {LINE_SCHEMA!r})",
            "a later edgesdk may have written it: update this one"
            if str(found).startswith("edgesdk.history-line/")
            else "edgesdk history export writes such lines; a report.json is imported by "
            "naming the file itself",
        )
    extra = sorted(set(document) - _FIELDS)
    if extra or not isinstance(document.get("report"), dict):
        raise _refusal(
            name, f"unknown field {extra[0][:80]!r}" if extra else "it has no report"
        )
    try:
        data = json.dumps(document["report"], separators=(",", ":"), allow_nan=False)
    except (ValueError, RecursionError):  # 1e999 reads as infinity
        raise _refusal(name, "a number in its report is too large, or it is too deep") from None
    report_bytes = data.encode("ascii")
    try:
        report = parse_report(report_bytes, name=name)
    except ReportError as exc:
        raise HistoryError(
            f"cannot import {name}: {exc}", hint=exc.hint, **{**exc.facts, "path": name}
        ) from exc
    run = describe_run(
        report, provenance=_provenance(document, name), labels=_labels(document, name)
    )
    return run, report_bytes


def _labels(document: Mapping[str, Any], name: str) -> tuple[str, ...]:
    labels = document.get("labels", [])
    if not isinstance(labels, list) or len(labels) > MAX_LABELS:
        raise _refusal(name, f"labels is no list of at most {MAX_LABELS} words")
    for label in labels:
        if not isinstance(label, str):
            raise _refusal(name, "a label is no text")
        check_label(label)
    return tuple(labels)


def _provenance(document: Mapping[str, Any], name: str) -> Provenance:
    branch, commit = document.get("branch"), document.get("commit")
    if branch is not None and not (
        isinstance(branch, str) and branch.isprintable() and 0 < len(branch) <= 200
    ):
        raise _refusal(name, "branch is neither null nor the name of one")
    if commit is not None and not (isinstance(commit, str) and _COMMIT.fullmatch(commit)):
        raise _refusal(name, "commit is neither null nor a commit's hash")
    return Provenance(branch=branch, commit=commit)


def _lines(stream: BinaryIO, name: str) -> Iterator[tuple[int, bytes]]:
    number = total = 0
    while line := stream.readline(MAX_LINE_BYTES + 1):
        number += 1
        total += len(line)
        if len(line) > MAX_LINE_BYTES:
            raise _refusal(name, f"line {number} is longer than {MAX_LINE_BYTES} bytes")
        if number > MAX_LINES or total > _MAX_TOTAL_BYTES:
            raise _refusal(
                name,
                f"it has more than {MAX_LINES} lines or {_MAX_TOTAL_BYTES} bytes",
                "cut it into several files: each line stands for itself",
            )
        if line.strip():
            yield number, line


def _refusal(name: str, seen: str, hint: str = "") -> HistoryError:
    return HistoryError(
        f"cannot import {name}: {seen}",
        hint=hint or "edgesdk history export writes such lines; nothing was imported",
        path=name,
    )


def _refuse_constant(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not a number in JSON")
