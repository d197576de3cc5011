"""What to quote of PyTorch's errors, whose texts run over many lines, and how to quieten it."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["first_line", "last_line", "quiet"]

_MAX = 300


def first_line(exc: BaseException) -> str:
    """Give the first line that says something, or the error's name."""
    return (_lines(str(exc)) or [type(exc).__name__])[0][:_MAX]


def last_line(exc: BaseException) -> str:
    """Give the last line that says something, or the error's name."""
    return (_lines(str(exc)) or [type(exc).__name__])[-1][:_MAX]


def _lines(text: str) -> list[str]:
    return [line.strip() for line in text.splitlines() if line.strip()]


@contextmanager
def quiet(name: str) -> Iterator[None]:
    """Keep a logger to errors for a while."""
    logger = logging.getLogger(name)
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)
