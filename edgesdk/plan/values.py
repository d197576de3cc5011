"""The plan: where every node will run, why not elsewhere, and what it will take."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from edgesdk.backends.base import Refusal

__all__ = ["BuildPlan", "GivenUp", "PlannedNode", "PlannedPart"]


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedNode:
    """One node of the source graph.

    Attributes:
        index: Position in the source graph; names may be missing or repeat.
        backend: Id of the backend that runs it.
        precision: The one it is meant to have; ``fp32`` where the quantizer leaves it alone.
        refusals: Why each better backend does not run it.
        why_float: Why it stays in float in a build of another precision; None elsewhere.
        reads: Names of the tensors it reads that are no constants.
        gives: Names of those it gives; some runtimes call what it became by these.
        share: Of the predicted time; 0 for what the build folds into another node.
    """

    index: int
    name: str
    op: str
    backend: str
    precision: str
    refusals: tuple[Refusal, ...]
    why_float: str | None = None
    reads: tuple[str, ...] = ()
    gives: tuple[str, ...] = ()
    share: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedPart:
    """A subgraph for one backend.

    Attributes:
        index: Position in the chain of parts.
        backend: Id of the backend it is made for. Nodes of it that this backend refuses run in
            the same file, on the backend that they name.
        nodes: Indices of source nodes.
        reads: Tensors that come in, by name.
        gives: Tensors that go out, by name.
        boundary_bytes: Size of both, for one run; an unknown extent counts as 1.
        share: Of the predicted time, what its nodes take.
    """

    index: int
    backend: str
    runtime: str
    format: str
    precision: str
    nodes: tuple[int, ...]
    reads: tuple[str, ...] = ()
    gives: tuple[str, ...] = ()
    boundary_bytes: int = 0
    share: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class GivenUp:
    """An island: nodes a better backend would take, and that cost more there than they save.

    Times are microseconds for one run by the figures of the profile.
    """

    backend: str
    nodes: tuple[int, ...]
    saves_us: float
    costs_us: float

    @property
    def reason(self) -> str:
        """Say it in words."""
        count = len(self.nodes)
        return (
            f"an island of {count} node{'s'[: count != 1]} that saves {self.saves_us:.3g} us "
            f"and costs {self.costs_us:.3g} us in copies and launches"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildPlan:
    """What `build_bundle` will do, made without doing it.

    ``memory_bytes`` is weights plus the largest set of tensors alive at once (None where a
    shape is not fixed); ``assumed`` names what rests on unmeasured figures; ``given_up`` are
    islands that are not worth their boundaries; ``share_by_backend`` is the predicted share of
    the time that each backend's nodes take, ``overhead_share`` that of copies and launches;
    ``fixed_inputs`` are the inputs whose open batch is taken as 1; ``warnings`` are sentences
    for people.
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
    given_up: tuple[GivenUp, ...] = ()
    share_by_backend: dict[str, float] | None = None
    overhead_share: float = 0.0
    fixed_inputs: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

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
