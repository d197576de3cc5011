"""How much of a model to prune, and in which pattern; as a recipe writes it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from edgesdk.errors import RecipeError
from edgesdk.near import suggest

__all__ = ["Pattern", "PruneSpec", "parse_prune"]

Pattern = Literal["2:4", "unstructured", "channels"]
_PATTERNS: tuple[Pattern, ...] = get_args(Pattern)
_FORMS = "2:4, unstructured:0.5 or channels:0.3"
_MOST = 0.95


@dataclass(frozen=True, slots=True, kw_only=True)
class PruneSpec:
    """A pattern and the share of weights, or of channels, that goes.

    ``2:4`` keeps two of four neighbouring input channels, so its sparsity is 0.5.
    """

    pattern: Pattern
    sparsity: float = 0.5

    @property
    def text(self) -> str:
        """The form that `parse_prune` reads."""
        return self.pattern if self.pattern == "2:4" else f"{self.pattern}:{self.sparsity:g}"


def parse_prune(text: str) -> PruneSpec:
    """Read ``2:4``, ``unstructured:0.5`` or ``channels:0.3``.

    Raises:
        RecipeError: It is none of these.
    """
    plain = text.strip().lower()
    if plain == "2:4":
        return PruneSpec(pattern="2:4")
    word, colon, share = plain.partition(":")
    pattern = next((known for known in _PATTERNS if known == word), None)
    if pattern is None:
        raise RecipeError(
            f"cannot prune by {text[:80]!r}: there is no such pattern (expected {_FORMS})",
            hint=suggest(word, _PATTERNS) or f"write {_FORMS}",
            prune=text[:80],
        )
    try:
        sparsity = float(share)
    except ValueError:
        sparsity = float("nan")
    if not 0 < sparsity <= _MOST:
        seen = f"its share is {share[:40]!r}" if colon else "it does not say how much"
        raise RecipeError(
            f"cannot prune by {text[:80]!r}: {seen} (expected a number above 0 and at most "
            f"{_MOST})",
            hint=f"0.5 removes half: {pattern}:0.5",
            prune=text[:80],
        )
    return PruneSpec(pattern=pattern, sparsity=sparsity)
