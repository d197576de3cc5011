"""What can execute part of a graph: one package per kind of backend, with its rules.

A backend turns a node down with a reason (`Backend.why_not`) or takes it; it never changes the
source graph. Its compiler turns the graph of a part into the files that its runtime reads. A
kind that a profile names and that has no package here takes nothing, and says so: the plan then
shows the accelerator with its reason instead of leaving it out.
"""

from __future__ import annotations

from edgesdk.backends.base import (
    Backend,
    CompiledPart,
    ModelFacts,
    NodesRefused,
    PartJob,
    Refusal,
)
from edgesdk.backends.registry import backend_for

__all__ = [
    "Backend",
    "CompiledPart",
    "ModelFacts",
    "NodesRefused",
    "PartJob",
    "Refusal",
    "backend_for",
]
