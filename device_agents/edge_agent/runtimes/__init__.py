"""One module per runtime, imported only when a part asks for it, only in a worker.

Each module offers the same four things::

    why_missing() -> Optional[str]      a sentence if it cannot be imported here
    version() -> str                    of the installed library
    module_file() -> str                where that library lies
    load(files, part, options) -> Part  see `base.Part`

``files`` are paths (model first, then ONNX external data), ``part`` is the part's record in the
manifest, ``options`` are the part's options with the host's ``threads`` merged in, and with
``cache_dir``: a folder of this runtime's own on the device for what is made from a part there
(compiled blobs, engines, timings). It lasts from worker to worker, need not exist yet, and the
module keeps it small and drops what another driver or version left. Where it is missing,
nothing may be kept. A bundle cannot set it.

A module in `edgesdk.wire.ops.FINISHED_RUNTIMES` also offers::

    finish(files, part, options, report, deadline) -> Dict[str, Any]

which makes, in a process of its own and perhaps for minutes, what ``load`` then finds in
``cache_dir``. ``load`` itself never does: without it, the part's fallbacks run.
"""

from __future__ import annotations

import importlib
from typing import Any, Optional

__all__ = ["NAMES", "find"]

NAMES = ("echo", "litert", "onnxruntime", "openvino", "tensorrt")


def find(name: str) -> Optional[Any]:
    """Give the module of a runtime, or None if this agent has none of that name."""
    if name not in NAMES:
        return None
    return importlib.import_module("edge_agent.runtimes." + name)
