"""Near misses: what somebody may have meant by a word nobody knows."""

from __future__ import annotations

import difflib
from collections.abc import Sequence

__all__ = ["near_misses", "suggest"]


def near_misses(word: str, known: Sequence[str]) -> tuple[str, ...]:
    """Give up to three known words like ``word``: spelt alike, or holding it as a part."""
    word = word[:100].lower()
    near = difflib.get_close_matches(word, known, n=3, cutoff=0.6)
    if len(word) >= 3:
        near += [name for name in known if word in name and name not in near]
    return tuple(near[:3])


def suggest(word: str, known: Sequence[str]) -> str:
    """Phrase near misses as a hint; empty where there are none."""
    near = near_misses(word, known)
    return f"did you mean {' or '.join(near)}?" if near else ""
