"""A stand-in for OpenVINO with an NPU: the real package, and one device more.

What the NPU is given, the real CPU plugin computes, so the numbers are real. Its manners are
those of the documents: fixed shapes only, no runtime model, a driver version of its own, blobs
that hold for that driver; under AUTO the processor begins unless it is told not to, and the NPU
takes over, and leaves its blob, when it is compiled. It stands alone, because it is put in
front of the real package on a device. FAKE_NPU_DRIVER is its driver's version; FAKE_NPU is
``ok``, ``refuse`` or ``die``, for what compiling comes to; FAKE_NPU_REFUSES lists types of
OpenVINO's operators that it does not take; FAKE_NPU_LOG is a file to which it writes what it
does.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import os
import sys
import threading
from pathlib import Path
from typing import Any

__all__ = ["Core"]

_NPU = "NPU"
#: How much later a blob is there where the processor begins.
_LATE_S = 0.3
_HERE = Path(__file__).resolve().parent
#: Whether it was imported in the place of the real package, and not only looked at.
_IN_FRONT = __name__ == "openvino"


def _real_package() -> Any:
    """Import the package that this file stands in front of."""
    if _IN_FRONT:
        del sys.modules["openvino"]
    paths, sys.path = sys.path, [p for p in sys.path if Path(p or ".").resolve() != _HERE]
    try:
        return importlib.import_module("openvino")
    finally:
        sys.path = paths


_real = _real_package()


def _note(what: str) -> None:
    log = os.environ.get("FAKE_NPU_LOG")
    if log:
        with Path(log).open("a", encoding="utf-8") as stream:
            stream.write(what + "\n")


def _driver() -> str:
    return os.environ.get("FAKE_NPU_DRIVER", "1700000000")


def _digest(model: Any) -> str:
    lines = [
        f"{node.get_type_name()} {node.get_friendly_name()}" for node in model.get_ordered_ops()
    ]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


class _OnNpu:
    """A model that was compiled for the NPU."""

    def __init__(self, inner: Any, blob: bytes, *, cached: bool, devices: list[str]) -> None:
        self._inner = inner
        self._blob = blob
        self._facts = {"EXECUTION_DEVICES": devices, "LOADED_FROM_CACHE": cached}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def get_property(self, name: str) -> Any:
        if name not in self._facts:
            raise RuntimeError(f"Unsupported property {name} by NPU plugin")
        return self._facts[name]

    def get_runtime_model(self) -> Any:
        raise RuntimeError("Not Implemented: get_runtime_model() in NPU plugin")

    def export_model(self) -> bytes:
        return self._blob


class Core(_real.Core):  # type: ignore[misc,name-defined]  # its types are known nowhere
    """The real one, with an NPU among its devices."""

    @property
    def available_devices(self) -> list[str]:
        """All that there are, and the NPU."""
        return [*super().available_devices, _NPU]

    def get_property(self, *asked: Any) -> Any:
        """What the NPU's plugin tells; others are asked themselves."""
        if asked[0] != _NPU:
            return super().get_property(*asked)
        known: dict[str, Any] = {
            "FULL_DEVICE_NAME": "Intel(R) AI Boost",
            "DEVICE_ARCHITECTURE": "4000",
            "NPU_DRIVER_VERSION": _driver(),
        }
        known["SUPPORTED_PROPERTIES"] = dict.fromkeys([*known, "SUPPORTED_PROPERTIES"], "RO")
        if asked[1] not in known:
            raise RuntimeError(f"Unsupported property {asked[1]} by NPU plugin")
        return known[asked[1]]

    def query_model(self, model: Any, device: str, *_: Any) -> dict[str, str]:
        """Say which device takes which operator."""
        if device.partition(":")[0] != "HETERO" or _NPU not in device:
            found: dict[str, str] = super().query_model(model, device)
            return found
        return {
            node.get_friendly_name(): "CPU" if _is_refused(node) else _NPU
            for node in model.get_ops()
        }

    def compile_model(self, model: Any, device: str = "AUTO", config: Any = None) -> Any:
        """Compile as the documents say that the NPU does; others are asked themselves."""
        settings = dict(config or {})
        mode, _, listed = device.partition(":")
        if device != _NPU and _NPU not in listed.split(","):
            return super().compile_model(model, device, settings)
        if isinstance(model, str):
            model = self.read_model(model)
        refused = [node for node in model.get_ops() if _is_refused(node)]
        devices = [_NPU]
        if mode == "AUTO" and refused:
            return super().compile_model(model, "AUTO:CPU", settings)
        if mode == "AUTO":
            settings.setdefault("ENABLE_STARTUP_FALLBACK", True)
        if mode == "HETERO" and refused:
            devices = [_NPU, "CPU"]
        elif refused:
            names = ", ".join(sorted({node.get_type_name() for node in refused}))
            raise RuntimeError(f"[NPU] Failed to compile: Unsupported operation {names}")
        return self._on_npu(model, settings, devices)

    def import_model(self, blob: bytes, device: str, *rest: Any) -> Any:
        """Refuse a blob of another driver."""
        if device == _NPU:
            _check(json.loads(blob))
        return super().import_model(blob, device, *rest)

    def _on_npu(self, model: Any, settings: dict[str, Any], devices: list[str]) -> Any:
        for value in (port for node in model.get_ops() for port in node.outputs()):
            if not value.partial_shape.is_static:
                raise RuntimeError("to_shape was called on a dynamic shape.")
        told = {"driver": _driver(), "model": _digest(model)}
        blob = json.dumps(told).encode()
        folder, cached = settings.pop("CACHE_DIR", None), False
        helped = settings.pop("ENABLE_STARTUP_FALLBACK", False)
        path = Path(folder or "") / f"{told['model'][:16]}.blob"
        if folder and path.exists():
            _check(json.loads(path.read_bytes()) if _is_whole(path) else _die())
            cached = True
            _note(f"loaded {told['driver']}")
        else:
            fate = os.environ.get("FAKE_NPU", "ok")
            _note(f"compiled {told['driver']} {fate}")
            if fate == "refuse":
                raise RuntimeError("[NPU] L0 pfnCreate2 result: ZE_RESULT_ERROR_UNKNOWN")
            if fate == "die":
                _die()
            if helped:
                devices = ["(CPU)"]
            if folder and helped:
                threading.Timer(_LATE_S, path.write_bytes, [blob]).start()
            elif folder:
                path.write_bytes(blob)
        counts = {"PERF_COUNT": True} if settings.get("PERF_COUNT") else {}
        held = {"INFERENCE_PRECISION_HINT": "f32", **counts}
        inner = super().compile_model(model, "CPU", held)
        return _OnNpu(inner, blob, cached=cached, devices=devices)


def _is_refused(node: Any) -> bool:
    return node.get_type_name() in os.environ.get("FAKE_NPU_REFUSES", "").split(",")


def _is_whole(path: Path) -> bool:
    try:
        return set(json.loads(path.read_bytes())) == {"driver", "model"}
    except ValueError:
        return False


def _check(told: Any) -> None:
    if told["driver"] != _driver():
        raise RuntimeError("[NPU] the blob was compiled by another driver")


def _die() -> Any:
    """End as a driver does that trusts a damaged blob."""
    _note("died")
    os.abort()


if _IN_FRONT:
    _real.Core = Core
    sys.modules["openvino"] = _real
