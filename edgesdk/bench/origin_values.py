"""Where a model came from, if an importer made it: a part of ``report.json``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from edgesdk.bench.fields import CONFIG, Amount, Count, Text
from edgesdk.devices.text import clean_text

__all__ = ["OriginRecord", "read_origin"]

_MAX_NOTES = 50
_MAX_VERSIONS = 20
#: A manifest is not written by us alone: what no report can hold counts as not said.
_MAX_AMOUNT = 1e18


@dataclass(frozen=True, slots=True, kw_only=True)
class OriginRecord:
    """The source that the model was imported from, and how well the import agrees with it."""

    __pydantic_config__ = CONFIG

    format: Text
    """Format of the source, such as ``torch-export`` or ``keras``."""
    sha256: Text
    """Hash of the source; empty where it was an object in a program's memory."""
    versions: Mapping[str, Text]
    """Version of the framework and of each package that took part."""
    toolchain: Text
    """Name and digest of the environment it was imported in; empty for the user's own."""
    examples: Count
    """How many sets of inputs were compared."""
    max_abs_error: Amount | None
    """The largest difference at any output between the framework and the imported graph."""
    max_rel_error: Amount | None
    """That over the largest value of the output."""
    trusted: bool
    """Whether code in the source was let run."""
    notes: tuple[Text, ...] = ()
    """What the exporter had to say."""


def read_origin(record: Mapping[str, Any]) -> OriginRecord | None:
    """Read what a manifest says of a model's origin; None where it says nothing."""
    if not record:
        return None

    def text(name: str) -> str:
        value = record.get(name)
        return clean_text(value[:500]) if isinstance(value, str) else ""

    def amount(name: str) -> float | None:
        value = record.get(name)
        if isinstance(value, bool) or not isinstance(value, int | float):
            return None
        return float(value) if 0 <= value <= _MAX_AMOUNT else None

    notes, versions = record.get("notes"), record.get("versions")
    return OriginRecord(
        format=text("format"),
        sha256=text("sha256"),
        versions={
            clean_text(str(name)[:100]): clean_text(str(each)[:100])
            for name, each in list(versions.items())[:_MAX_VERSIONS]
        }
        if isinstance(versions, Mapping)
        else {},
        toolchain=text("toolchain"),
        examples=int(amount("examples") or 0),
        max_abs_error=amount("max_abs_error"),
        max_rel_error=amount("max_rel_error"),
        trusted=record.get("trusted") is True,
        notes=tuple(clean_text(str(note)[:500]) for note in notes[:_MAX_NOTES])
        if isinstance(notes, list)
        else (),
    )
