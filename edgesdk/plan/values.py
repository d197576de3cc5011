"""The plan: where every node will run, why not elsewhere, and what it will take."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from edgesdk.backends.base import Refusal

__all__ = ["BuildPlan", "PlannedNode", "PlannedPart"]


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedNode:
    """One node of the source graph.

    Attributes:
        index: Position in the source graph; names may be missing or repeat.
        backend: Id of the backend that runs it.
        precision: The one it is meant to have; ``fp32`` where the quantizer leaves it alone.
        why_float: Why it stays in float in a build of another precision; None elsewhere.
        refusals: Why each better backend does not run it.
    """

    index: int
    name: str
    op: str
    backend: str
    precision: str
    refusals: tuple[Refusal, ...]
    why_float: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedPart:
    """A subgraph for one backend, as indices of source nodes."""

    index: int
    backend: str
    runtime: str
    format: str
    precision: str
    nodes: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildPlan:
    """What `build_bundle` will do, made without doing it.

    ``memory_bytes`` is weights plus the largest set of tensors alive at once (None where a
    shape is not fixed); ``assumed`` names what rests on unmeasured figures.
    """

    model: str
    model_sha256: str
    target: str
    target_sha256: str
    recipe_sha256: str
    precision: str
    steps: tuple[str, ...]
    nodes: tuple[PlannedNode, ...]
    parts: tuple[PlannedPart, ...]
    memory_bytes: int | None
    assumed: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Give the plan as plain data."""
        return asdict(self)

    @property
    def nodes_by_backend(self) -> dict[str, int]:
        """How many nodes each backend runs."""
        counts: dict[str, int] = {}
        for node in self.nodes:
            counts[node.backend] = counts.get(node.backend, 0) + 1
        return counts
