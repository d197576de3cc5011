"""What agents tell of their ops, and reports made of it, for the tests of offload."""

from __future__ import annotations

import json
from typing import Any

from edgesdk.bench.judged import describe_offload
from edgesdk.bench.offload_values import Offload
from edgesdk.bench.predicted import PredictedNode
from edgesdk.bench.told import read_told
from edgesdk.profiles.catalog import find_target
from edgesdk.wire.frames import Frame
from tests.unit.bench.fixtures import make_bundle

ORIN = find_target("jetson-orin-nx")
CORAL = find_target("coral-dev-board")


def op(name: str = "c", us: float | None = 10.0, **fields: Any) -> dict[str, Any]:
    known = {
        "op": "Conv",
        "name": name,
        "where": "GPU",
        "accelerator": True,
        "us": us,
        "derived": False,
        "precision": "int8",
        "count": 1,
    }
    return {**known, **fields}


def cpu(name: str = "s", us: float | None = 10.0, **fields: Any) -> dict[str, Any]:
    there = {"where": "CPUExecutionProvider", "accelerator": False}
    return op(name, us, **{**there, **fields})


def part(
    index: int, *ops: dict[str, Any], total_us: float | None = 100.0, **fields: Any
) -> Any:
    known = {"index": index, "runtime": "tensorrt", "ops": list(ops), "how": "counters"}
    return {**known, "total_us": total_us, "share": None, "why": None, **fields}


def reply(*parts: Any, chain_us: float | None = None, **served: Any) -> Frame:
    runtimes = [
        {"part": index, "runtime": "x", "version": "1", **served.get(f"part_{index}", {})}
        for index in range(len(parts))
    ]
    document = {"chain_us": chain_us, "parts": list(parts)}
    return Frame({"ok": True, "runtimes": runtimes}, json.dumps(document).encode())


def node(name: str, backend: str, **fields: Any) -> PredictedNode:
    known = {"label": name, "name": name, "op": "Conv", "backend": backend, "share": 0.1}
    return PredictedNode(**{**known, "reads": (), "gives": (f"{name}_out",), **fields})


def judged(
    frame: Frame,
    *nodes: PredictedNode,
    backends: tuple[str, ...] = ("tensorrt",),
    profile: Any = ORIN,
    planned: dict[str, int] | None = None,
) -> Offload:
    bundle = make_bundle(*backends)
    if planned is not None:
        bundle.manifest["predicted"]["nodes_by_backend"] = planned
        bundle.manifest["predicted"]["share_by_backend"] = dict.fromkeys(planned, 0.5)
    return describe_offload(
        read_told(frame, parts=len(backends), device="d"),
        manifest=bundle.manifest,
        nodes=nodes,
        backends=() if profile is None else profile.backends,
    )
