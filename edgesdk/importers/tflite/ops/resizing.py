"""Pictures made larger or smaller."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from edgesdk.importers.tflite.held import CannotConvert
from edgesdk.importers.tflite.registry import converts
from edgesdk.importers.tflite.site import CHANNELS_FIRST, Site

if TYPE_CHECKING:
    import onnx_ir as ir

__all__: list[str] = []


@converts("RESIZE_BILINEAR")
def _bilinear(site: Site) -> None:
    fields = {"mode": "linear", "coordinate_transformation_mode": _coordinates(site)}
    site.give(_resized(site, fields), CHANNELS_FIRST)


@converts("RESIZE_NEAREST_NEIGHBOR")
def _nearest(site: Site) -> None:
    """Make a Resize where ONNX picks the same places, else pick them by a Gather per axis."""
    way = _coordinates(site)
    mode = "floor" if way == "asymmetric" else "round_prefer_ceil"
    tables = [
        (_places(read, site.countable(wanted), way), _onnx_places(read, wanted, way))
        for read, wanted in zip(site.shape(0)[1:3], site.out_shape()[1:3], strict=True)
    ]
    if all(np.array_equal(theirs, ours) for theirs, ours in tables):
        fields = {
            "mode": "nearest",
            "coordinate_transformation_mode": way,
            "nearest_mode": mode,
        }
        site.give(_resized(site, fields), CHANNELS_FIRST)
        return
    value = site.take(0, CHANNELS_FIRST)
    for axis, (places, _) in enumerate(tables):
        where = site.builder.constant(places.astype(np.int64))
        value = site.emit("Gather", [value, where], {"axis": 2 + axis})
    site.give(value, CHANNELS_FIRST)


def _coordinates(site: Site) -> str:
    corners, half = site.number("align_corners"), site.number("half_pixel_centers")
    if corners and half:
        raise CannotConvert("it aligns both corners and centres of pixels")
    return "align_corners" if corners else "half_pixel" if half else "asymmetric"


def _resized(site: Site, fields: dict[str, str]) -> ir.Value:
    out = site.out_shape()
    if len(out) != 4 or len(site.shape(0)) != 4:
        raise CannotConvert(f"it gives {len(out)} dimensions (expected 4)")
    sizes = site.builder.numbers(*(out[axis] for axis in CHANNELS_FIRST))
    return site.emit("Resize", [site.take(0, CHANNELS_FIRST), None, None, sizes], fields)


def _places(read: int, wanted: int, way: str) -> np.ndarray:
    """Say which entry of ``read`` TFLite takes for each of ``wanted``, in its float32."""
    one = np.float32(1.0)
    scale = np.float32(read) / np.float32(wanted)
    if way == "align_corners" and wanted > 1:
        scale = np.float32(read - 1) / np.float32(wanted - 1)
    at = np.arange(wanted, dtype=np.float32)
    if way == "half_pixel":
        at += one / 2
    exact = at * scale
    found = np.floor(exact + one / 2) if way == "align_corners" else np.floor(exact)
    places: np.ndarray = np.clip(found, 0, read - 1).astype(np.int64)
    return places


def _onnx_places(read: int, wanted: int, way: str) -> np.ndarray:
    """Say which entries onnxruntime takes, whose coordinates are float32 too."""
    one = np.float32(1.0)
    at = np.arange(wanted, dtype=np.float32)
    scale = np.float32(wanted) / np.float32(read)
    if way == "asymmetric":
        found = np.floor(at / scale)
    elif way == "half_pixel":
        found = np.floor((at + one / 2) / scale - one / 2 + one / 2)
    else:
        steps = np.float32(max(wanted - 1, 1))
        found = np.floor(at * np.float32(read - 1) / steps + one / 2)
    places: np.ndarray = np.clip(found, 0, read - 1).astype(np.int64)
    return places
