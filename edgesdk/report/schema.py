"""The JSON Schema of ``report.json``, and the one place where pydantic meets the report."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

from edgesdk.bench.values import VERDICTS, BenchmarkReport

if TYPE_CHECKING:
    from pydantic import TypeAdapter

__all__ = ["report_adapter", "report_schema"]


@cache
def report_adapter() -> TypeAdapter[BenchmarkReport]:
    """Make pydantic's view of a report, once."""
    from pydantic import TypeAdapter

    return TypeAdapter(BenchmarkReport)


def report_schema() -> dict[str, Any]:
    """Give the JSON Schema (2020-12) of ``report.json``: every field, enum and limit."""
    schema = report_adapter().json_schema(mode="serialization")
    verdict = "; ".join(f"{code}: {meaning}" for code, meaning in VERDICTS.items())
    schema["properties"]["verdict"]["description"] = verdict
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "edgesdk benchmark report",
        **{key: value for key, value in schema.items() if key != "title"},
    }
