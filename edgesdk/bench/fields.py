"""The types of the fields of a report, with their limits, written so that pydantic finds them.

The upper limits keep sums and drawings finite, whatever a file says.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, TypeAlias

__all__ = [
    "CONFIG",
    "Amount",
    "Count",
    "Degrees",
    "Fraction",
    "Limits",
    "Scalar",
    "Sha256",
    "Text",
    "UtcTime",
]

#: How pydantic treats every class of a report.
CONFIG = {
    "extra": "forbid",
    "allow_inf_nan": False,
    "use_attribute_docstrings": True,
    "json_schema_serialization_defaults_required": True,
}

Scalar: TypeAlias = str | int | float | bool | None


class Limits:
    """Constraints for pydantic that can be written down without importing it."""

    def __init__(self, **constraints: Any) -> None:
        self._constraints = constraints

    def __get_pydantic_core_schema__(
        self, source: Any, handler: Callable[[Any], dict[str, Any]]
    ) -> dict[str, Any]:
        return {**handler(source), **self._constraints}


Sha256: TypeAlias = Annotated[str, Limits(pattern="^[0-9a-f]{64}$")]
#: ISO 8601 in UTC, as in 2026-01-15T09:30:00Z; a fraction of a second is allowed.
UtcTime: TypeAlias = Annotated[
    str, Limits(pattern=r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|\+00:00)$")
]
Text: TypeAlias = Annotated[str, Limits(max_length=20_000)]
Count: TypeAlias = Annotated[int, Limits(ge=0, le=(1 << 63) - 1)]
Amount: TypeAlias = Annotated[float, Limits(ge=0.0, le=1e18)]
Degrees: TypeAlias = Annotated[float, Limits(ge=-1e6, le=1e6)]
Fraction: TypeAlias = Annotated[float, Limits(ge=0.0, le=1.0)]
