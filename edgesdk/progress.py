"""How long-running functions say how far they are; the CLI draws it, nothing here prints."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

__all__ = ["OnNote", "OnProgress", "Progress", "ignore_note", "ignore_progress"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """One sign of life of one step.

    ``total`` is None where it is not known; ``unit`` is ``"B"`` for bytes, else a plural noun.
    A step is over when ``done == total``.
    """

    step: str
    done: int
    total: int | None = None
    unit: str = ""


OnProgress = Callable[[Progress], None]
#: Takes a remark for people, of one or more lines.
OnNote = Callable[[str], None]


def ignore_progress(progress: Progress) -> None:
    """Take a progress report and do nothing: the default of every ``on_progress``."""


def ignore_note(text: str) -> None:
    """Take a remark and do nothing: the default of every ``on_note``."""
