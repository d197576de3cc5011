"""A scripted conversation and a small bundle for the benchmark tests."""

from __future__ import annotations

import copy
import struct
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from edgesdk.bench.values import DeviceRecord
from edgesdk.bundle import Bundle
from edgesdk.wire.frames import Frame

REPLY: dict[str, Any] = {
    "ok": True,
    "runs": 3,
    "warmup_runs": 2,
    "cold_start_ms": 300.5,
    "load_ms": 20.25,
    "first_run_ms": 5.0,
    "peak_rss_bytes": 50_000_000,
    "wall_s": 0.5,
    "started": "2026-01-15T09:30:00Z",
    "conditions": {
        "static": {"governor": "performance", "cpu_count": 4},
        "samples": [
            {
                "t_s": 0.0,
                "cpu_mhz": [1500.0, 1500.0],
                "temp_c": {"cpu": 50.0},
                "load1": 0.1,
                "throttled": [],
                "mem_available_bytes": 1000,
            }
        ],
    },
    "runtimes": [
        {
            "part": 0,
            "runtime": "onnxruntime",
            "version": "1.23.2",
            "detail": {
                "providers": ["CPUExecutionProvider"],
                "assignment": {"CPUExecutionProvider": 12},
            },
        }
    ],
    "parts": [{"index": 0, "backend": "ort-cpu", "median_ms": 2.0, "share": 1.0}],
}


def reply_frame(samples_ms: list[float], **changes: Any) -> Frame:
    meta = copy.deepcopy(REPLY)
    meta["runs"] = len(samples_ms)
    meta.update(changes)
    nanoseconds = [round(sample * 1e6) for sample in samples_ms]
    return Frame(meta, struct.pack(f"<{len(nanoseconds)}Q", *nanoseconds))


class ScriptedSession:
    """Answers each request with the next frame and remembers what was asked."""

    device_name = "bench-3"

    def __init__(self, *frames: Frame, events: tuple[dict[str, Any], ...] = ()) -> None:
        self._frames = list(frames)
        self._events = events
        self.asked: list[tuple[str, Mapping[str, Any]]] = []
        self.timeouts_s: list[float] = []

    def request(
        self,
        op: str,
        meta: Mapping[str, Any] | None = None,
        body: bytes = b"",
        *,
        timeout_s: float = 60.0,
        on_event: Callable[[Mapping[str, Any]], None] | None = None,
    ) -> Frame:
        self.asked.append((op, meta or {}))
        self.timeouts_s.append(timeout_s)
        for event in self._events:
            if on_event is not None:
                on_event(event)
        return self._frames.pop(0)


def make_bundle(*backends: str, **fields: Any) -> Bundle:
    port = {"name": "x", "dtype": "float32", "shape": [1, "n"]}
    manifest = {
        "schema": "edgesdk.bundle/1",
        "name": "toy",
        "precision": "int8",
        "model": {"name": "toy", "format": "onnx", "sha256": "ab" * 32, "bytes": 10},
        "target": {"name": "raspberry-pi-5", "family": "arm-cpu", "sha256": "cd" * 32},
        "inputs": [port],
        "outputs": [port],
        "predicted": {
            "nodes_by_backend": {"ort-cpu": 12},
            "share_by_backend": {"ort-cpu": 1.0},
            "assumed": ["ram_bytes"],
        },
        "as_built": {"quantized_nodes": 9, "left_float": [{"name": "softmax"}]},
        "parts": [
            {
                "backend": backend,
                "runtime": "onnxruntime",
                "format": "onnx",
                "precision": "int8",
                "files": [{"role": "model", "sha256": f"{i:064x}", "bytes": 100}],
            }
            for i, backend in enumerate(backends or ("ort-cpu",))
        ],
        **fields,
    }
    return Bundle(folder=Path("nowhere"), id="ef" * 32, manifest=manifest)


def make_device() -> DeviceRecord:
    return DeviceRecord(
        name="bench-3",
        url="local:",
        machine="aarch64",
        cpu_model=None,
        cpu_count=4,
        device_tree_model=None,
        ram_bytes=None,
        system=None,
        kernel=None,
        os=None,
        python=None,
        agent_version=None,
        agent_sha256=None,
    )
