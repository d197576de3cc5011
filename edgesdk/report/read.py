"""Read ``report.json``, which may come from anywhere: nothing in it is believed unchecked."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from edgesdk.bench.values import REPORT_SCHEMA, BenchmarkReport
from edgesdk.errors import ReportError
from edgesdk.report.schema import report_adapter

__all__ = ["MAX_REPORT_BYTES", "is_report", "parse_report", "read_report", "read_reports"]

#: A report of the longest run that may be asked for is smaller.
MAX_REPORT_BYTES = 64 << 20
# Each list or object costs far more memory than its two characters.
_MAX_CONTAINERS = 200_000
_SHOWN_PROBLEMS = 3
_SHOWN_FAILURES = 10
_FAMILY = REPORT_SCHEMA.partition("/")[0] + "/"
_NO_REPORT = "edgesdk report --schema prints what a report looks like"
_OTHER_VERSION = (
    "another version of edgesdk wrote it: show it with that one, or measure again with this one"
)


def is_report(text: str) -> bool:
    """Say whether it names a report: a ``.json``, or a folder with a ``report.json``."""
    path = Path(text)
    try:
        return path.suffix == ".json" or (path / "report.json").is_file()
    except OSError:  # such as a name that is too long for any file
        return False


def read_report(path: Path) -> BenchmarkReport:
    """Read and check a report; ``path`` is the file or the folder that holds ``report.json``.

    Raises:
        ReportError: The file cannot be read, or is not such a report.
    """
    file = path
    try:
        if path.is_dir():
            file = path / "report.json"
        with file.open("rb") as stream:
            data = stream.read(MAX_REPORT_BYTES + 1)
    except OSError as exc:
        raise ReportError(
            f"cannot read report {file}: {exc.strerror or exc}",
            hint="name a report.json, or the folder that a benchmark wrote",
            path=str(file),
        ) from exc
    return parse_report(data, name=str(file))


def read_reports(paths: Sequence[Path]) -> list[BenchmarkReport]:
    """Read several reports; a file that is named twice is read once.

    A folder without a ``report.json`` of its own stands for those in the folders inside it.

    Raises:
        ReportError: One or more cannot be read, or are no such reports; all are named.
    """
    files: dict[Path, Path] = {}
    for path in paths:
        try:
            files.update(_files_of(path))
        except OSError:  # such as a name that is too long: reading it says what it is
            files[path] = path
    reports, failed = [], []
    for file in files.values():
        try:
            reports.append(read_report(file))
        except ReportError as exc:
            failed.append(exc)
    if len(failed) == 1:
        raise failed[0]
    if failed:
        shown = "\n".join(f"  {exc}" for exc in failed[:_SHOWN_FAILURES])
        more = len(failed) - _SHOWN_FAILURES
        if more > 0:
            shown += f"\n  and {more} more"
        raise ReportError(
            f"cannot read {len(failed)} of {len(files)} reports:\n{shown}",
            hint="leave these out: they are no reports, or of another version of edgesdk",
            paths=[str(exc.facts.get("path")) for exc in failed[:_SHOWN_FAILURES]],
        )
    return reports


def _files_of(path: Path) -> dict[Path, Path]:
    """Find what a path stands for: files as they are shown, by what they are."""
    found = [path / "report.json" if path.is_dir() else path]
    if not found[0].exists():
        found = sorted(path.glob("*/report.json")) or found
    return {each.resolve(): each for each in found}


def parse_report(data: bytes, *, name: str) -> BenchmarkReport:
    """Check the bytes of a report; ``name`` is for messages.

    Raises:
        ReportError: Too large, not strict JSON, another schema, or a field is wrong.
    """
    if len(data) > MAX_REPORT_BYTES:
        raise _refusal(name, f"it is larger than {MAX_REPORT_BYTES} bytes")
    if not data.strip():
        raise _refusal(name, "it is empty")
    if data.count(b"[") + data.count(b"{") > _MAX_CONTAINERS:
        raise _refusal(name, f"it holds more than {_MAX_CONTAINERS} lists and objects")
    try:
        document = json.loads(
            data.decode("utf-8"), object_pairs_hook=_object, parse_constant=_refuse_constant
        )
    except RecursionError:
        raise _refusal(name, "it is nested too deeply") from None
    except ValueError as exc:
        raise _refusal(name, f"it is not JSON: {exc}") from exc
    found = document.get("schema") if isinstance(document, dict) else None
    if found != REPORT_SCHEMA:
        seen = f"its schema is {_short(found)} (expected {REPORT_SCHEMA!r})"
        is_ours = isinstance(found, str) and found.startswith(_FAMILY)
        raise _refusal(name, seen, _OTHER_VERSION if is_ours else _NO_REPORT)
    return _validate(data, name)


def _validate(data: bytes, name: str) -> BenchmarkReport:
    from pydantic import ValidationError

    try:
        return report_adapter().validate_json(data, strict=True)
    except ValidationError as exc:
        problems = exc.errors(include_url=False, include_context=False, include_input=False)
        said = []
        for problem in problems[:_SHOWN_PROBLEMS]:
            where = ".".join(str(step) for step in problem["loc"])
            said.append(f"{_short(where)[1:-1] or 'it'}: {_short(problem['msg'])[1:-1]}")
        more = f" (and {len(problems) - len(said)} more)" if len(problems) > len(said) else ""
        raise _refusal(name, "; ".join(said) + more) from exc


def _refusal(name: str, seen: str, hint: str = _NO_REPORT) -> ReportError:
    return ReportError(f"cannot read report {name}: {seen}", hint=hint, path=name)


def _short(value: object) -> str:
    """Show a value from the file in one printable line."""
    text = ascii(value)
    return text if len(text) <= 200 else f"{text[:197]}..."


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("an object has the same key twice")
    return found


def _refuse_constant(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not a number in JSON")
