"""What to quote of an error of PyTorch's, whose texts run over many lines."""

from __future__ import annotations

__all__ = ["first_line", "last_line"]

_MAX = 300


def first_line(exc: BaseException) -> str:
    """Give the first line that says something, or the error's name."""
    return (_lines(str(exc)) or [type(exc).__name__])[0][:_MAX]


def last_line(exc: BaseException) -> str:
    """Give the last line that says something, or the error's name."""
    return (_lines(str(exc)) or [type(exc).__name__])[-1][:_MAX]


def _lines(text: str) -> list[str]:
    return [line.strip() for line in text.splitlines() if line.strip()]
