"""What can execute part of a graph: one package per kind of backend, with its rules.

A backend turns a node down with a reason (`Backend.why_not`) or takes it; it never changes the
graph. A kind that a profile names and that has no package here takes nothing, and says so: the
plan then shows the accelerator with its reason instead of leaving it out.
"""

from __future__ import annotations

from edgesdk.backends.base import Backend, ModelFacts, Refusal
from edgesdk.backends.registry import backend_for

__all__ = ["Backend", "ModelFacts", "Refusal", "backend_for"]
