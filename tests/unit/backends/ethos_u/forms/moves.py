"""Operators that move numbers about, in a plain form."""

from __future__ import annotations

import numpy as np

from tests.unit.backends.ethos_u.graphs import Spec, T, const


def resize(
    op: str = "RESIZE_BILINEAR",
    *,
    size: tuple[int, int] = (8, 8),
    out: tuple[int, int] = (16, 16),
    depth: int = 4,
    align: bool = False,
    half: bool = False,
    batch: int = 1,
    dtype: str = "int8",
) -> Spec:
    """A resize."""
    kind = (
        "ResizeBilinearOptions" if op == "RESIZE_BILINEAR" else "ResizeNearestNeighborOptions"
    )
    return Spec(
        op,
        (T((batch, *size, depth), dtype), const(list(out))),
        (T((batch, *out, depth), dtype),),
        kind,
        {"alignCorners": align, "halfPixelCenters": half},
    )


def pad(
    op: str = "PAD",
    *,
    shape: tuple[int, ...] = (1, 8, 8, 8),
    pads: tuple[tuple[int, int], ...] = ((0, 0), (1, 1), (1, 1), (0, 0)),
    dtype: str = "int8",
    pads_dtype: str = "int32",
    mode: int = 0,
) -> Spec:
    """A pad."""
    out = tuple(e + a + b for e, (a, b) in zip(shape, pads, strict=True))
    inputs: tuple[T, ...] = (T(shape, dtype), const(pads, pads_dtype))
    if op == "PADV2":
        inputs = (*inputs, const(np.asarray(3), dtype, scales=(0.05,)))
    kind = {"PAD": "PadOptions", "PADV2": "PadV2Options", "MIRROR_PAD": "MirrorPadOptions"}[op]
    return Spec(
        op, inputs, (T(out, dtype),), kind, {"mode": mode} if op == "MIRROR_PAD" else {}
    )


def transpose(
    shape: tuple[int, ...] = (1, 8, 8, 8),
    order: tuple[int, ...] = (0, 2, 1, 3),
    dtype: str = "int8",
) -> Spec:
    """TRANSPOSE."""
    out = tuple(shape[axis] for axis in order)
    return Spec(
        "TRANSPOSE", (T(shape, dtype), const(list(order))), (T(out, dtype),), "TransposeOptions"
    )


def reshape(
    shape: tuple[int, ...] = (1, 8, 8, 8), out: tuple[int, ...] = (1, 512), dtype: str = "int8"
) -> Spec:
    """RESHAPE."""
    return Spec(
        "RESHAPE",
        (T(shape, dtype), const(list(out))),
        (T(out, dtype),),
        "ReshapeOptions",
        {"newShape": list(out)},
    )


def concat(
    shapes: tuple[tuple[int, ...], ...] = ((1, 8, 8, 8), (1, 8, 8, 8)),
    axis: int = 3,
    dtype: str = "int8",
    activation: int = 0,
) -> Spec:
    """CONCATENATION."""
    out = list(shapes[0])
    out[axis] = sum(shape[axis] for shape in shapes)
    return Spec(
        "CONCATENATION",
        tuple(T(shape, dtype) for shape in shapes),
        (T(tuple(out), dtype),),
        "ConcatenationOptions",
        {"axis": axis, "fusedActivationFunction": activation},
    )


def split(
    shape: tuple[int, ...] = (1, 8, 8, 8),
    axis: int = 3,
    parts: int = 2,
    dtype: str = "int8",
    said: int | None = None,
) -> Spec:
    """SPLIT."""
    out = list(shape)
    out[axis] //= parts
    return Spec(
        "SPLIT",
        (const(np.asarray(axis)), T(shape, dtype)),
        tuple(T(tuple(out), dtype) for _ in range(parts)),
        "SplitOptions",
        {"numSplits": parts if said is None else said},
    )


def split_v(
    shape: tuple[int, ...] = (1, 8, 8, 8),
    axis: int = 3,
    sizes: tuple[int, ...] = (3, 5),
    dtype: str = "int8",
    said: int | None = None,
) -> Spec:
    """SPLIT_V."""
    outs = []
    for size in sizes:
        out = list(shape)
        out[axis] = size
        outs.append(T(tuple(out), dtype))
    return Spec(
        "SPLIT_V",
        (T(shape, dtype), const(list(sizes)), const(np.asarray(axis))),
        tuple(outs),
        "SplitVOptions",
        {"numSplits": len(sizes) if said is None else said},
    )


def slice_(
    shape: tuple[int, ...] = (1, 8, 8, 8),
    begin: tuple[int, ...] = (0, 1, 1, 0),
    size: tuple[int, ...] = (1, 4, 4, 8),
    dtype: str = "int8",
) -> Spec:
    """SLICE."""
    return Spec(
        "SLICE",
        (T(shape, dtype), const(list(begin)), const(list(size))),
        (T(size, dtype),),
        "SliceOptions",
    )


def strided(
    shape: tuple[int, ...] = (1, 8, 8, 8),
    begin: tuple[int, ...] = (0, 1, 1, 0),
    end: tuple[int, ...] = (1, 7, 7, 8),
    strides: tuple[int, ...] = (1, 1, 1, 1),
    dtype: str = "int8",
    **masks: int,
) -> Spec:
    """STRIDED_SLICE."""
    out = []
    for axis, (extent, b, e, s) in enumerate(zip(shape, begin, end, strides, strict=True)):
        if masks.get("shrinkAxisMask", 0) >> axis & 1:
            continue
        low = 0 if masks.get("beginMask", 0) >> axis & 1 else b
        high = extent if masks.get("endMask", 0) >> axis & 1 else e
        if s < 0:
            low = extent - 1 if masks.get("beginMask", 0) >> axis & 1 else b
            high = -1 if masks.get("endMask", 0) >> axis & 1 else e
        out.append(len(range(low, high, s)))
    return Spec(
        "STRIDED_SLICE",
        (T(shape, dtype), const(list(begin)), const(list(end)), const(list(strides))),
        (T(tuple(out), dtype),),
        "StridedSliceOptions",
        dict(masks),
    )


def pack(
    shape: tuple[int, ...] = (1, 8, 8), axis: int = 3, count: int = 2, dtype: str = "int8"
) -> Spec:
    """PACK."""
    out = list(shape)
    out.insert(axis, count)
    return Spec(
        "PACK",
        tuple(T(shape, dtype) for _ in range(count)),
        (T(tuple(out), dtype),),
        "PackOptions",
        {"axis": axis, "valuesCount": count},
    )


def unpack(shape: tuple[int, ...] = (1, 8, 8, 4), axis: int = 3, dtype: str = "int8") -> Spec:
    """UNPACK."""
    out = [extent for position, extent in enumerate(shape) if position != axis % len(shape)]
    return Spec(
        "UNPACK",
        (T(shape, dtype),),
        tuple(T(tuple(out), dtype) for _ in range(shape[axis])),
        "UnpackOptions",
        {"axis": axis, "num": shape[axis]},
    )


def tile(
    shape: tuple[int, ...] = (1, 4, 4, 8),
    times: tuple[int, ...] = (1, 2, 1, 1),
    dtype: str = "int8",
) -> Spec:
    """TILE."""
    out = tuple(e * t for e, t in zip(shape, times, strict=True))
    return Spec("TILE", (T(shape, dtype), const(list(times))), (T(out, dtype),))


def gather(
    shape: tuple[int, ...] = (8, 16),
    indices: tuple[int, ...] = (4,),
    axis: int = 0,
    batch_dims: int = 0,
    dtype: str = "int8",
    constant: bool = False,
) -> Spec:
    """GATHER."""
    positions = (
        const(np.zeros(indices), "int32") if constant else T(indices, "int32", scales=())
    )
    out = (*shape[:axis], *indices[batch_dims:], *shape[axis + 1 :])
    return Spec(
        "GATHER",
        (T(shape, dtype), positions),
        (T(out, dtype),),
        "GatherOptions",
        {"axis": axis, "batchDims": batch_dims},
    )
