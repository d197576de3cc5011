"""Modules of the agent that are imported the first time something of them is asked for.

Over SSH every command starts ``edge-agent stdio`` anew, and a zipapp keeps no bytecode: each
module is compiled again before the host hears the first word. So what a greeting and a push do
without is reached as ``later.NAME``, here and nowhere else, and what is made of it is a `Part`.

The daemon starts once and lives long. It imports all of it at once (`import_all`): an update
may replace the file it runs from, and memory or descriptors may be short when something is
first needed.
"""

from __future__ import annotations

import importlib
import sys
import threading
from typing import Any, Callable

__all__ = ["Part", "has", "import_all"]

_NAMES = {
    name: "edge_agent." + name
    for name in (
        *("activation", "assemble", "benching", "child", "describing", "evaluating"),
        *("finishing", "lanes", "line_gate", "loading", "measuring", "memory", "pairing"),
        *("policy_ops", "probe", "profiling", "runtimes"),
        *("serving", "signing", "signing_keys", "watch"),
    )
}
_NAMES.update(auth="edgesdk.wire.auth", traceback="traceback")


def __getattr__(name: str) -> Any:
    """Import ``name``; afterwards it is an attribute like any other."""
    if name not in _NAMES:
        raise AttributeError("the agent imports no {} later".format(name))
    module = globals()[name] = importlib.import_module(_NAMES[name])
    return module


def has(name: str) -> bool:
    """Say whether a module was asked for already."""
    return _NAMES[name] in sys.modules


def import_all() -> None:
    """Import every module that there is to import."""
    for name in _NAMES:
        __getattr__(name)


class Part:
    """A method whose result is made once, when its attribute is first read."""

    _lock = threading.RLock()

    def __init__(self, make: Callable[[Any], Any]) -> None:
        self._make = make
        self._name = make.__name__
        self.__doc__ = make.__doc__

    def __get__(self, owner: Any, kind: Any = None) -> Any:
        """Make it; what is in the object's own ``__dict__`` is found before this."""
        with self._lock:
            if self._name not in vars(owner):
                vars(owner)[self._name] = self._make(owner)
            return vars(owner)[self._name]
