"""Fix the open extents of a TFLite file, and ask LiteRT what shapes follow from them.

A file states one shape for each tensor, made for the extents it states for its inputs. Other
extents give other shapes all the way, which LiteRT works out when it is told.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from edgesdk.errors import CompileError, ModelError
from edgesdk.importers.tflite.litert import LiteRT, litert_version
from edgesdk.model.tflite import OpenedTflite
from edgesdk.tensors import TensorInfo

__all__ = ["settle_shapes"]

Shapes = Mapping[str, tuple[int | None, ...]]


def settle_shapes(opened: OpenedTflite, shapes: Shapes) -> OpenedTflite:
    """Give the file with its inputs at fixed shapes.

    Where extents are open and LiteRT is there, all shapes are those it works out.

    Args:
        opened: The file.
        shapes: By input name; ``""`` stands for the only input.

    Raises:
        ModelError: There is no such input, the shape does not fit it, or there is no LiteRT to
            say what follows.
    """
    graph, path = opened.graph, opened.source.path
    wanted = {index: graph.tensors[index].shape for index in graph.inputs}
    for name, shape in shapes.items():
        wanted[_input(opened, name)] = _whole(opened, name, shape)
    is_open = any(extent < 0 for tensor in graph.tensors for extent in tensor.shape_signature)
    if litert_version() is None:
        if shapes:
            raise ModelError(
                f"cannot fix shapes of {path}: ai-edge-litert, which works out what follows, "
                "is not installed",
                hint="install it: python3 -m pip install 'edgesdk[litert]'",
            )
        return opened
    if not is_open and not shapes:
        return opened
    try:
        found = LiteRT(graph.data, keeps=True, shapes=list(wanted.values())).shapes()
    except CompileError as exc:
        given = "; ".join(
            f"{graph.tensors[index].name} {list(shape)}" for index, shape in wanted.items()
        )
        raise ModelError(
            f"cannot fix shapes of {path}: LiteRT does not take {given}: {exc.__cause__}",
            hint="give extents that its layers leave something of: --shape NAME=1,... for "
            "edgesdk import",
            path=str(path),
        ) from exc
    tensors = tuple(
        tensor
        if tensor.constant is not None or tensor.index not in found
        else replace(tensor, shape=found[tensor.index], shape_signature=found[tensor.index])
        for tensor in graph.tensors
    )
    source = replace(
        opened.source,
        inputs=tuple(
            TensorInfo(name=each.name, dtype=each.dtype, shape=tensors[index].shape)
            for each, index in zip(opened.source.inputs, graph.inputs, strict=True)
        ),
    )
    return replace(opened, source=source, graph=replace(graph, tensors=tensors))


def _input(opened: OpenedTflite, name: str) -> int:
    names = {opened.graph.tensors[index].name: index for index in opened.graph.inputs}
    if not name and len(names) == 1:
        return next(iter(names.values()))
    if name not in names:
        raise ModelError(
            f"cannot fix the shape of {name!r}: {opened.source.path.name} has no such input "
            f"(it has {', '.join(map(repr, names))})",
            hint="give the shape as --shape NAME=1,...",
            input=name,
        )
    return names[name]


def _whole(opened: OpenedTflite, name: str, shape: tuple[int | None, ...]) -> tuple[int, ...]:
    tensor = opened.graph.tensors[_input(opened, name)]
    fits = len(shape) == len(tensor.shape_signature) and all(
        extent is not None and extent > 0 and stated in (-1, extent)
        for extent, stated in zip(shape, tensor.shape_signature, strict=False)
    )
    if not fits:
        stated = ["?" if extent < 0 else extent for extent in tensor.shape_signature]
        raise ModelError(
            f"cannot fix the shape of {tensor.name!r} as {list(shape)}: the file states "
            f"{stated}",
            hint="give whole numbers for the extents that are open, and the others as they are",
            input=tensor.name,
        )
    return tuple(extent for extent in shape if extent is not None)
