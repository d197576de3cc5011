"""What serves a part while its own runtime or device cannot: other backends of the target.

A part that is finished on the device may not be finished yet, or not at all; one that a driver
compiles when it is loaded may be refused by that driver. Other devices of the same runtime read
the same files. onnxruntime reads ONNX only: what such a part ships, or a spare file of it.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from edgesdk.profiles.values import BackendProfile, TargetProfile

__all__ = ["AT_LOAD", "FINISHED", "ceilings_of", "fallbacks_of"]

#: The quirks of backends whose parts need them.
FINISHED = "finished-on-device"
AT_LOAD = "compiled-at-load"
#: Runtimes that read ONNX as it is.
_READERS = ("onnxruntime",)


def fallbacks_of(
    target: TargetProfile,
    backend: BackendProfile,
    *,
    part_format: str = "onnx",
    has_spare: bool = False,
    avoid: Collection[str] = (),
) -> list[dict[str, Any]]:
    """Give the fallbacks of a part of ``backend``, as a manifest has them.

    Args:
        target: The target; its order of backends is theirs.
        backend: The one the part is for.
        part_format: Of the part's files.
        has_spare: Whether it has an ONNX file besides.
        avoid: Ids of backends that the user does not want.

    Returns:
        Records of ``backend``, ``runtime`` and ``options``, and ``spare`` where one is given
        the spare file; none where the backend's parts are complete as they are built.
    """
    found = []
    for other in _others(target, backend):
        if other.id in avoid:
            continue
        record: dict[str, Any] = {"backend": other.id, "runtime": other.runtime}
        if other.runtime == backend.runtime:
            found.append({**record, "options": dict(other.options)})
            continue
        # the graph is laid out for another runtime, whose numbers are wanted
        record["options"] = {**other.options, "as_written": True}
        if part_format == "onnx":
            found.append(record)
        elif has_spare:
            found.append({**record, "spare": True})
    return found


def ceilings_of(
    target: TargetProfile, backend: BackendProfile
) -> tuple[int | None, int | None]:
    """Give the newest opset and IR version that all who may run a part of ``backend`` load.

    None stands for any.
    """
    served = (backend, *_others(target, backend))
    opsets = [each.max_opset for each in served if each.max_opset is not None]
    versions = [each.max_ir for each in served if each.max_ir is not None]
    return min(opsets, default=None), min(versions, default=None)


def _others(target: TargetProfile, backend: BackendProfile) -> list[BackendProfile]:
    """Give the backends that may serve instead, best first."""
    if FINISHED in backend.quirks:
        able = [each for each in target.backends if each.runtime in _READERS]
    elif AT_LOAD in backend.quirks:
        # what comes before it was better and has been asked; nothing is gained by going back
        later = target.backends[[each.id for each in target.backends].index(backend.id) :]
        readers = (*_READERS, backend.runtime)
        able = [each for each in later if each.runtime in readers]
    else:
        able = []
    return [each for each in able if each.id != backend.id]
