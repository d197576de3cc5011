"""One module per runtime, imported only when a part asks for it, only in a worker.

Each module offers the same four things::

    why_missing() -> Optional[str]      a sentence if it cannot be imported here
    version() -> str                    of the installed library
    module_file() -> str                where that library lies
    load(files, part, options) -> Part  see `base.Part`

``files`` are paths (model first, then ONNX external data), ``part`` is the part's record in the
manifest, ``options`` are the part's options with the host's ``threads`` merged in.
"""

from __future__ import annotations

import importlib
from typing import Any, Optional

__all__ = ["NAMES", "find"]

NAMES = ("echo", "litert", "onnxruntime", "openvino")


def find(name: str) -> Optional[Any]:
    """Give the module of a runtime, or None if this agent has none of that name."""
    if name not in NAMES:
        return None
    return importlib.import_module("edge_agent.runtimes." + name)
