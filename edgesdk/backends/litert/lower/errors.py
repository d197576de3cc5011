"""What a lowering raises where it cannot go on."""

from __future__ import annotations

__all__ = ["CannotLower"]


class CannotLower(Exception):
    """A node has no form in TFLite; the message is the reason that the plan shows."""
