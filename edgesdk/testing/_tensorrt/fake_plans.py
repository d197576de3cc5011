"""The engine files of the stand-ins for ``trtexec`` and the ``tensorrt`` package.

An engine is a header in JSON, which says for which device and version it is, and the model. It
is refused where the real one is: on another GPU, by another version, or damaged.
"""

from __future__ import annotations

import hashlib
import json
import os
from typing import Any

import numpy as np

__all__ = ["__version__", "pack_engine", "read_calibration", "unpack_engine"]

__version__ = os.environ.get("FAKE_TENSORRT_VERSION", "10.3.0")
_MAJOR = int(__version__.split(".")[0])
_MAGIC = b"FAKETRT1"


def _device() -> dict[str, str]:
    return {
        "gpu": os.environ.get("FAKE_GPU_NAME") or "Orin",
        "compute": os.environ.get("FAKE_GPU_COMPUTE") or "8.7",
        "tensorrt": __version__,
    }


def _types_in(model: Any) -> tuple[bool, bool]:
    """Say whether a model has float16 values, and whether it has Q/DQ nodes."""
    import onnx

    half = onnx.TensorProto.FLOAT16
    halves = any(tensor.data_type == half for tensor in model.graph.initializer)
    halves = halves or any(
        attribute.name == "to" and attribute.i == half
        for node in model.graph.node
        if node.op_type == "Cast"
        for attribute in node.attribute
    )
    return halves, any(node.op_type == "QuantizeLinear" for node in model.graph.node)


def read_calibration(data: bytes) -> dict[str, float]:
    """Read a calibration cache.

    Raises:
        ValueError: It is not one.
    """
    header, *lines = data.decode("utf-8").splitlines()
    if not header.startswith("TRT-") or not header.endswith("-EntropyCalibration2"):
        raise ValueError(f"calibration cache begins with {header[:40]!r}")
    scales = {}
    for line in lines:
        name, colon, digits = line.rpartition(": ")
        if not colon or len(digits) != 8:
            raise ValueError(f"calibration cache has the line {line[:80]!r}")
        scales[name] = float(np.frombuffer(bytes.fromhex(digits), ">f4")[0])
    return scales


def pack_engine(
    path: str,
    *,
    flags: set[str],
    dla_core: int | None = None,
    calibration: bytes | None = None,
) -> bytes:
    """Make an engine of an ONNX file.

    Raises:
        ValueError: The model is none, or needs what it was not allowed.
    """
    import onnx

    try:
        model = onnx.load(path)
        onnx.checker.check_model(model)
    except Exception as exc:
        raise ValueError(f"ModelImporter: {' '.join(str(exc).split())[:200]}") from exc
    halves, quantized = _types_in(model)
    if _MAJOR < 11:
        if quantized and "int8" not in flags:
            raise ValueError(
                "4: Int8 precision has been set for a layer or layer output, but int8 is not "
                "configured in the builder"
            )
        if halves and "fp16" not in flags:
            raise ValueError("4: the network has half tensors, and fp16 is not configured")
    if dla_core is not None:
        if not flags & {"fp16", "int8"}:
            raise ValueError("DLA needs fp16 or int8")
        if quantized:
            raise ValueError("explicit quantization is not supported on DLA")
    scales = {} if calibration is None else read_calibration(calibration)
    body = model.SerializeToString()
    header = {
        **_device(),
        "dla": dla_core,
        "flags": sorted(flags),
        "scales": len(scales),
        "sha256": hashlib.sha256(body).hexdigest(),
    }
    text = json.dumps(header).encode()
    return b"".join((_MAGIC, len(text).to_bytes(4, "little"), text, body))


def unpack_engine(data: bytes) -> tuple[dict[str, Any], bytes]:
    """Give what an engine says of itself, and its model.

    Raises:
        ValueError: It is damaged, or for another device.
    """
    if data[:8] != _MAGIC:
        raise ValueError("Serialization assertion magicTagRead == kMAGIC_TAG failed")
    size = int.from_bytes(data[8:12], "little")
    header = json.loads(data[12 : 12 + size])
    body = data[12 + size :]
    if hashlib.sha256(body).hexdigest() != header["sha256"]:
        raise ValueError("Serialization assertion failed: the plan is shorter than it says")
    here = _device()
    if header["tensorrt"] != here["tensorrt"]:
        raise ValueError(
            f"The engine plan file is not compatible with this version of TensorRT, expecting "
            f"library version {header['tensorrt']} got {here['tensorrt']}"
        )
    if (header["gpu"], header["compute"]) != (here["gpu"], here["compute"]):
        raise ValueError(
            f"The engine plan file is generated on an incompatible device, expecting compute "
            f"{here['compute']} got compute {header['compute']}, please rebuild"
        )
    return header, body
