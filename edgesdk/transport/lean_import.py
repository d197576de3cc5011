"""Importing a library without a large part of it that is not used here.

paramiko imports invoke, and with it asyncio, unittest and a YAML parser, for one rule of its
own reader of SSH configurations, which edgesdk does not use; that is over a third of the time
that paramiko takes. It goes on where invoke is missing, so that is how it looks meanwhile.
Other code in this process finds it as it would have been: at its first use.
"""

from __future__ import annotations

import contextlib
import importlib
import sys
from collections.abc import Iterator
from typing import Any

__all__ = ["standing_aside"]


class _Later:
    """Stands for a module until something of it is asked for."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, attribute: str) -> Any:
        return getattr(importlib.import_module(self._name), attribute)


@contextlib.contextmanager
def standing_aside(name: str, *, user: str) -> Iterator[None]:
    """Have the module ``name`` look missing while the block imports what can do without it.

    Args:
        name: The module; it is left alone where it, or its user, is imported already.
        user: The module that has it as an attribute of that name, and gets it at first use.
    """
    if name in sys.modules or user in sys.modules:
        yield
        return
    sys.modules[name] = None  # type: ignore[assignment] # how Python marks a module as missing
    try:
        yield
    finally:
        del sys.modules[name]
        if user in sys.modules:
            setattr(sys.modules[user], name, _Later(name))
