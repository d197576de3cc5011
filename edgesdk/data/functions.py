"""Functions of the user's own, named on the command line as ``module:function``.

It is the user's own code, named by the user, so it is imported and run; nothing in a file can
name it. What it throws becomes a DataError that says where.
"""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from edgesdk.errors import DataError, EdgeError

__all__ = ["import_function", "is_function_spec", "users_errors"]

_FUNCTION = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*\Z")


def is_function_spec(spec: str) -> bool:
    """Tell whether something is written as ``module:function``."""
    return len(spec) < 256 and bool(_FUNCTION.match(spec)) and not Path(spec).exists()


def import_function(spec: str, doing: str) -> Callable[..., Any]:
    """Import what ``spec`` names, also from the current folder.

    Args:
        spec: ``module:function``.
        doing: What it is wanted for, for messages: ``"read data from"``.

    Raises:
        DataError: It cannot be imported, or there is no such function.
    """
    module_name, _, name = spec.partition(":")
    here = str(Path.cwd())
    added = here not in sys.path
    if added:
        sys.path.insert(0, here)
    try:
        with users_errors(f"{doing} {spec}"):
            module = importlib.import_module(module_name)
    finally:
        if added:
            sys.path.remove(here)
    function = getattr(module, name, None)
    if not callable(function):
        known = [entry for entry, value in vars(module).items() if callable(value)]
        listed = ", ".join(entry for entry in known if not entry.startswith("_")) or "none"
        raise DataError(
            f"cannot {doing} {spec}: module {module_name!r} has no function {name!r}",
            hint=f"functions there are: {listed}"[:300],
        )
    return function  # type: ignore[no-any-return]  # whatever the user wrote


@contextmanager
def users_errors(doing: str) -> Iterator[None]:
    """Turn what the user's own code throws into a DataError that says where.

    Args:
        doing: What cannot be done then: ``"read data from module:function"``.
    """
    try:
        yield
    except EdgeError:
        raise
    except ModuleNotFoundError as exc:
        raise DataError(
            f"cannot {doing}: {exc}",
            hint="a module is looked for in the current folder and among installed packages",
        ) from exc
    except Exception as exc:
        raise DataError(f"cannot {doing}: {type(exc).__name__}: {exc}") from exc
