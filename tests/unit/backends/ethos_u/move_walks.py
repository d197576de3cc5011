"""Operators that move, cut or resize, over and across a compiler's limits."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from tests.unit.backends.ethos_u.forms import (
    PLAIN,
    concat,
    gather,
    lstm,
    pack,
    pad,
    prelu,
    reshape,
    resize,
    slice_,
    split,
    split_v,
    strided,
    tile,
    transpose,
    unary,
    unpack,
)
from tests.unit.backends.ethos_u.graphs import Spec, T, const

__all__ = ["moves", "resizes", "rest"]


def moves() -> Iterator[tuple[str, Spec]]:
    for dtype in ("int8", "int16", "int32", "uint8"):
        for order in itertools.permutations(range(4)):
            yield f"transpose-{dtype}-{order}", transpose((1, 4, 6, 8), order, dtype)
            yield f"transpose2-{dtype}-{order}", transpose((2, 4, 6, 8), order, dtype)
        for order in itertools.permutations(range(3)):
            yield f"transpose-{dtype}-{order}", transpose((4, 6, 8), order, dtype)
        yield f"transpose-{dtype}-2d", transpose((6, 8), (1, 0), dtype)
        yield f"transpose-{dtype}-5d", transpose((1, 2, 4, 6, 8), (0, 1, 3, 2, 4), dtype)
        yield f"transpose-{dtype}-5d-b", transpose((2, 2, 4, 6, 8), (4, 3, 2, 1, 0), dtype)
        yield f"transpose-{dtype}-8d", transpose((2,) * 8, (1, 0, 3, 2, 5, 4, 7, 6), dtype)
        yield f"transpose-{dtype}-9d", transpose((2,) * 9, (1, 0, 3, 2, 5, 4, 7, 6, 8), dtype)
    for shape, order in (
        ((1, 65537, 2, 2), (0, 2, 1, 3)), ((1, 2, 65537, 2), (0, 2, 1, 3)),
        ((1, 2, 2, 65537), (0, 2, 1, 3)), ((1, 2, 2, 16385), (0, 2, 1, 3)),
        ((300, 300, 2, 2), (1, 0, 2, 3)), ((2, 300, 300, 2), (0, 3, 1, 2)),
        ((2, 300, 2, 300), (3, 1, 2, 0)), ((1, 2, 65537, 2), (0, 1, 3, 2)),
        ((2, 2, 65537, 2), (0, 1, 3, 2)), ((2, 2, 2, 65537), (1, 0, 2, 3)),
        ((65537, 2), (1, 0)), ((2, 65537), (1, 0)), ((65536, 2), (1, 0)),
    ):  # fmt: skip
        for dtype in ("int8", "int16", "int32"):
            yield f"transpose-big-{dtype}-{shape}-{order}", transpose(shape, order, dtype)
    for shape, out in (
        ((1, 8, 8, 8), (512,)), ((1, 8, 8, 8), (8, 64)), ((2, 8, 8, 8), (1, 16, 8, 8)),
        ((1, 8, 8, 8), (2, 2, 2, 2, 32)), ((2, 2, 2, 2, 2, 2), (8, 8)), ((1,), ()),
    ):  # fmt: skip
        for dtype in ("int8", "int16", "int32", "uint8"):
            yield f"reshape-{dtype}-{shape}-{out}", reshape(shape, out, dtype)
    for name in ("RESHAPE", "SQUEEZE", "EXPAND_DIMS", "NEG", "SUM", "TRANSPOSE", "MIRROR_PAD"):
        bare = PLAIN[name]().with_maps(dtype="int32", scales=())
        yield f"{name}-int32-no-grid", bare
    yield "reshape-other-grid", reshape().with_outputs(scales=(0.02,))
    yield "reshape-no-shape", replace(reshape(), inputs=reshape().inputs[:1])
    for shape in ((8, 8), (1, 4, 8), (2, 4, 4, 8), (1, 2, 4, 4, 8), (8,)):
        for axis in range(len(shape)):
            yield f"concat-{shape}-{axis}", concat((shape, shape), axis)
            yield f"concat3-{shape}-{axis}", concat((shape, shape, shape), axis)
            if shape[axis] > 1:
                yield f"split-{shape}-{axis}", split(shape, axis)
                yield f"split_v-{shape}-{axis}", split_v(shape, axis, (1, shape[axis] - 1))
            yield f"unpack-{shape}-{axis}", unpack(shape, axis)
        for axis in range(len(shape) + 1):
            yield f"pack-{shape}-{axis}", pack(shape, axis)
    yield "concat-odd", concat(((1, 8, 8, 3), (1, 8, 8, 5)))
    yield "concat-negative", concat(axis=-1)
    yield "concat-batch", concat(axis=0)
    yield "concat-mixed", concat().with_input(1, dtype="int16")
    yield "concat-mixed-scale", concat().with_input(1, scales=(0.02,))
    yield "split-said", split(said=3)
    yield "split_v-said", split_v(said=3)
    yield "split_v-rest", split_v().with_input(1, values=np.asarray([3, -1], np.int32))
    yield "split-negative", split(axis=-1)
    for begin, size in (
        ((0, 0, 0, 0), (1, 8, 8, 8)), ((0, 0, 0, 3), (1, 8, 8, 5)),
        ((0, 7, 7, 7), (1, 1, 1, 1)),
    ):  # fmt: skip
        yield f"slice-{begin}", slice_(begin=begin, size=size)
    yield "slice-batch", slice_((2, 8, 8, 8), (1, 0, 0, 0), (1, 8, 8, 8))
    yield "slice-5d", slice_((1, 2, 4, 4, 8), (0, 1, 0, 0, 0), (1, 1, 4, 4, 8))
    yield "slice-2d", slice_((4, 8), (1, 2), (2, 4))
    yield "slice-rest", slice_().with_input(2, values=np.asarray([-1, 4, 4, -1], np.int32))
    for strides in (
        (1, 2, 1, 1), (1, 1, 2, 1), (1, 2, 2, 1), (1, 1, 1, 2), (1, 3, 3, 1), (1, 4, 1, 1),
        (1, 1, 4, 1), (1, 1, 1, 3),
    ):  # fmt: skip
        yield f"strided-{strides}", strided(strides=strides)
    yield (
        "strided-reverse-h",
        strided(begin=(0, 7, 0, 0), end=(1, 1, 8, 8), strides=(1, -1, 1, 1)),
    )
    yield (
        "strided-reverse-w",
        strided(begin=(0, 0, 7, 0), end=(1, 8, 1, 8), strides=(1, 1, -1, 1)),
    )
    yield "strided-batch", strided((2, 8, 8, 8), (0, 0, 0, 0), (2, 8, 8, 8), (2, 1, 1, 1))
    yield "strided-2d", strided((8, 8), (0, 0), (8, 8), (2, 1))
    yield "strided-2d-depth", strided((8, 8), (0, 0), (8, 8), (1, 2))
    yield (
        "strided-5d",
        strided((1, 2, 4, 4, 8), (0, 0, 0, 0, 0), (1, 1, 4, 4, 8), (1, 1, 1, 1, 1)),
    )
    yield (
        "strided-5d-2",
        strided((1, 4, 4, 4, 8), (0, 0, 0, 0, 0), (1, 4, 4, 4, 8), (1, 2, 1, 1, 1)),
    )
    for mask in ("beginMask", "endMask", "shrinkAxisMask"):
        for bits in (1, 2, 6, 8, 15):
            yield f"strided-{mask}{bits}", strided(**{mask: bits})
    for mask in ("ellipsisMask", "newAxisMask"):
        for bits in (1, 2):
            yield f"strided-{mask}{bits}", strided().with_options(**{mask: bits})
    yield "strided-both-masks", strided().with_options(ellipsisMask=1, newAxisMask=2)
    yield "strided-offset", strided().with_options(offset=True)
    yield "strided-empty", strided().with_input(2, values=np.asarray([1, 1, 7, 8], np.int32))
    pads_list: list[tuple[tuple[int, int], ...]] = [
        ((0, 0), (0, 0), (0, 0), (1, 1)), ((1, 0), (0, 0), (0, 0), (0, 0)),
        ((0, 0), (3, 3), (3, 3), (0, 0)), ((0, 0), (0, 7), (0, 0), (0, 0)), ((0, 0),) * 4,
        ((0, 0), (1, 1), (1, 1), (1, 1)),
    ]  # fmt: skip
    for op in ("PAD", "PADV2", "MIRROR_PAD"):
        for pads in pads_list:
            yield f"{op}-{pads}", pad(op, pads=pads)
        yield f"{op}-2d", pad(op, shape=(4, 8), pads=((1, 1), (2, 2)))
        yield f"{op}-3d", pad(op, shape=(4, 4, 8), pads=((1, 1), (2, 2), (0, 0)))
        yield f"{op}-1d", pad(op, shape=(8,), pads=((1, 1),))
        yield (
            f"{op}-5d",
            pad(op, shape=(1, 2, 4, 4, 8), pads=((0, 0), (0, 0), (1, 1), (1, 1), (0, 0))),
        )
        yield (
            f"{op}-5d-out",
            pad(op, shape=(1, 2, 4, 4, 8), pads=((0, 0), (1, 1), (0, 0), (0, 0), (0, 0))),
        )
        yield f"{op}-b2", pad(op, shape=(2, 8, 8, 8))
        for dtype in ("int64", "int16", "int8"):
            yield f"{op}-pads-{dtype}", pad(op, pads_dtype=dtype)
    yield "mirror-symmetric", pad("MIRROR_PAD", mode=1)
    for times in (
        (1, 1, 2, 1),
        (1, 1, 1, 2),
        (2, 1, 1, 1),
        (2, 2, 2, 2),
        (1, 1, 1, 1),
        (1, 1, 1, 9),
    ):
        for dtype in ("int8", "int16", "int32", "uint8"):
            yield f"tile-{dtype}-{times}", tile(times=times, dtype=dtype)
    yield "tile-2d", tile((4, 8), (2, 2))
    yield "tile-5d", tile((1, 2, 4, 4, 8), (1, 2, 1, 1, 1))
    for shape in ((8,), (4, 8), (2, 4, 8), (2, 4, 4, 8), (1, 2, 4, 4, 8)):
        for axis in range(len(shape)):
            made = Spec(
                "REVERSE_V2", (T(shape), const([axis])), (T(shape),), "ReverseV2Options"
            )
            yield f"reverse-{shape}-{axis}", made
    yield (
        "reverse-two",
        Spec(
            "REVERSE_V2",
            (T((1, 8, 8, 8)), const([1, 2])),
            (T((1, 8, 8, 8)),),
            "ReverseV2Options",
        ),
    )
    for axis in range(3):
        yield f"gather-axis{axis}", gather((4, 8, 16), axis=axis)
        yield f"gather-const-axis{axis}", gather((4, 8, 16), axis=axis, constant=True)
    yield "gather-batch", gather((4, 8, 16), (4, 2), axis=1, batch_dims=1)
    yield "gather-batch-off", gather((4, 8, 16), (4, 2), axis=2, batch_dims=1)
    yield "gather-2d", gather((8, 16), (2, 3))
    for dtype in ("int16", "int32", "uint8"):
        yield f"gather-{dtype}", gather(dtype=dtype)
    yield "gather-int64", gather().with_input(1, dtype="int64")
    yield "gather-int16", gather().with_input(1, dtype="int16")


def resizes() -> Iterator[tuple[str, Spec]]:
    for op in ("RESIZE_BILINEAR", "RESIZE_NEAREST_NEIGHBOR"):
        for align in (False, True):
            for half in (False, True):
                for size, out in (
                    ((8, 8), (16, 16)), ((8, 8), (32, 32)), ((8, 8), (64, 64)),
                    ((8, 8), (24, 24)),
                    ((8, 8), (128, 128)), ((8, 8), (15, 15)), ((8, 8), (29, 29)),
                    ((8, 8), (57, 57)),
                    ((8, 8), (8, 8)), ((1, 1), (7, 7)), ((1, 1), (8, 8)), ((8, 8), (4, 4)),
                    ((8, 8), (16, 32)), ((8, 8), (8, 16)), ((1, 8), (1, 16)), ((8, 1), (16, 1)),
                    ((1, 8), (1, 15)), ((8, 8), (17, 17)), ((4, 8), (8, 16)), ((1, 1), (1, 1)),
                    ((5, 7), (10, 14)), ((5, 7), (9, 13)), ((1, 8), (2, 16)), ((1, 8), (8, 8)),
                    ((2, 2), (2048, 2)), ((1, 2), (1, 2050)),
                ):  # fmt: skip
                    yield (
                        f"{op}-{align}-{half}-{size}-{out}",
                        resize(op, size=size, out=out, align=align, half=half),
                    )
        for dtype in ("uint8", "int16", "int32"):
            yield f"{op}-{dtype}", resize(op, dtype=dtype)


def rest() -> Iterator[tuple[str, Spec]]:
    for shape in ((8,), (4, 8), (2, 4, 8), (1, 2, 4, 4, 8), (2, 8, 8, 8)):
        yield f"prelu-{shape}", prelu(shape, (shape[-1],))
        yield f"prelu-open-{shape}", prelu(shape, (shape[-1],), constant=False)
    yield "prelu-full", prelu(slopes=(8, 8, 8))
    yield "prelu-one", prelu(slopes=(1, 1, 1))
    for dtype in ("uint8", "int16", "int32"):
        yield f"prelu-{dtype}", prelu(dtype=dtype)
    yield "lstm-cifg", lstm(without=(1, 5, 12))
    yield "lstm-peephole", lstm(peephole=True)
    yield "lstm-projection", lstm(projection=True)
    yield "lstm-norm", lstm(norm=True)
    yield "lstm-time", lstm(time_major=True)
    yield "lstm-time-b2", lstm(time_major=True, batch=2)
    yield "lstm-batch", lstm(batch=3)
    yield "lstm-long", lstm(steps=20, cells=33)
    yield "lstm-one-peephole", lstm(peephole=True, without=(9, 10))
    yield "lstm-u8", lstm(dtype="uint8")
    yield "lstm-16", lstm(dtype="int16")
    yield "lstm-no-bias", lstm(without=(12, 13, 14, 15))
    yield "lstm-20-in", replace(lstm(), inputs=lstm().inputs[:20])
    for block in (2, 4):
        out = (1, 8 * block, 8 * block, 16 // block // block)
        yield (
            f"d2s-{block}",
            unary(
                "DEPTH_TO_SPACE",
                "DepthToSpaceOptions",
                shape=(1, 8, 8, 16),
                out=out,
                blockSize=block,
            ),
        )
