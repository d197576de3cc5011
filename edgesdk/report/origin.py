"""Say what a model was imported from, and what was compared."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edgesdk.bench.origin_values import OriginRecord

__all__ = ["origin_facts", "origin_text"]


def origin_text(origin: OriginRecord) -> str:
    """Say it in a line: the format, the framework, the largest difference."""
    versions = ", ".join(f"{name} {each}" for name, each in origin.versions.items())
    return f"{origin.format} ({versions}); {_proof(origin)}"


def origin_facts(origin: OriginRecord | None) -> list[tuple[str, object]]:
    """Say it in rows; none where the model is the user's own file."""
    if origin is None:
        return []
    return [
        ("imported from", origin_text(origin)),
        ("source sha256", origin.sha256 or None),
        ("imported in", origin.toolchain or None),
        ("its code", "was let run" if origin.trusted else None),
    ]


def _proof(origin: OriginRecord) -> str:
    if origin.max_rel_error is None:
        return "not compared with it"
    return (
        f"within {origin.max_rel_error:.1g} of the largest value on {origin.examples} examples"
    )
