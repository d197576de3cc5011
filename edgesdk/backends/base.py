"""The seam between planner and backends: facts in, reasons out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from edgesdk.model.values import NodeFacts, SourceModel
from edgesdk.profiles.values import BackendProfile

__all__ = ["Backend", "ModelFacts", "Refusal", "RuleBackend", "WhyNot"]

WhyNot = Callable[[NodeFacts], str | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """A backend turning a node down. ``backend`` is the id in the target profile."""

    backend: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFacts:
    """What a rule may look at beyond one node: the whole source graph."""

    source: SourceModel
    nodes: tuple[NodeFacts, ...]


class Backend(Protocol):
    """One backend of one target: the profile's facts with the code that knows the kind."""

    @property
    def profile(self) -> BackendProfile:
        """What the target profile says of it."""

    def why_not(self, node: NodeFacts) -> str | None:
        """Say why this backend cannot run ``node``, or None if it can."""

    def part_format(self) -> str:
        """The format (``edgesdk.wire.manifest.FORMAT_SUFFIX``) its runtime reads."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RuleBackend:
    """A backend that is a list of rules; the first that objects gives the reason."""

    profile: BackendProfile
    format: str
    rules: tuple[WhyNot, ...]

    def why_not(self, node: NodeFacts) -> str | None:
        """Give the first rule's objection, or None."""
        for rule in self.rules:
            if (reason := rule(node)) is not None:
                return reason
        return None

    def part_format(self) -> str:
        """The format its runtime reads."""
        return self.format
