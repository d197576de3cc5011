"""Freeze symbolic extents, infer shapes, and write what was found into the graph."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from edgesdk.errors import ModelError
from edgesdk.model._external import bring_in
from edgesdk.model._isolated import ChildFailed, check_and_infer

if TYPE_CHECKING:
    import onnx
    import onnx_ir

__all__ = ["clean_inputs", "freeze_inputs", "infer_and_check"]

_BIG_TENSOR_BYTES = 1024
_MAX_EXTENT = (1 << 31) - 1
#: The prefix of names that shape inference invents.
_INVENTED = "unk__"

_Extent = int | str | None


def clean_inputs(model: onnx_ir.Model) -> None:
    """Read as unknown what exporters write for it: extents like -1, or symbols ``"-1"``."""
    for value in (*model.graph.inputs, *model.graph.outputs):
        extents = _extents(value)
        if extents is not None and any(map(_says_nothing, extents)):
            _set_shape(value, [None if _says_nothing(one) else one for one in extents])


def _says_nothing(extent: _Extent) -> bool:
    return extent in ("", "-1", "?", "None") or (isinstance(extent, int) and extent < 0)


def freeze_inputs(
    model: onnx_ir.Model, shapes: Mapping[str, tuple[int, ...]], path: Path
) -> None:
    """Give inputs fixed shapes; extents that share a symbol are frozen together.

    Raises:
        ModelError: An unknown input, another rank, or an extent that contradicts the model or
            another extent of the same symbol.
    """
    inputs = {value.name: value for value in model.graph.inputs}
    symbols: dict[str, tuple[int, str]] = {}
    for name, wanted in shapes.items():
        if name not in inputs:
            names = ", ".join(repr(one) for one in inputs)
            raise ModelError(
                f"cannot fix the shape of {name!r}: {path.name} has no such input "
                f"(it has {names})",
                hint="give the shape as --shape NAME=1,3,224,224",
                input=name,
            )
        _freeze_one(inputs[name], tuple(wanted), symbols)
    for value in model.graph.inputs:
        extents = _extents(value)
        if extents is not None and any(extent in symbols for extent in extents):
            _set_shape(
                value,
                [
                    symbols[one][0] if isinstance(one, str) and one in symbols else one
                    for one in extents
                ],
            )
    fixed = {symbol: extent for symbol, (extent, _) in symbols.items()}
    for value in model.graph.outputs:
        extents = _extents(value)
        if extents is not None:
            _set_shape(
                value, [fixed.get(one, one) if isinstance(one, str) else one for one in extents]
            )


def infer_and_check(model: onnx_ir.Model, path: Path) -> None:
    """Run ONNX's checker and shape inference, and keep the types and shapes they found.

    Shapes that the file states for inner values are not believed: exporters leave stale ones.

    Raises:
        ModelError: The checker or the inference refuses the model, or cannot cope with it.
    """
    import onnx

    light = _without_weights(model)
    try:
        answer = check_and_infer(_with_output_shapes(light), light.SerializeToString())
        inferred = onnx.ModelProto.FromString(answer)
    except ChildFailed as exc:
        raise _refused(exc, path) from exc
    except ValueError as exc:  # protobuf's, above 2 GiB
        raise ModelError(
            f"cannot check {path}: its constants have 2 GiB or more",
            hint="export weights as initializers, in external data",
        ) from exc
    _apply(model.graph, inferred.graph, _symbols(model.graph))


def _freeze_one(
    value: onnx_ir.Value, wanted: tuple[int, ...], symbols: dict[str, tuple[int, str]]
) -> None:
    name = value.name or ""
    for extent in wanted:
        if (
            isinstance(extent, bool)
            or not isinstance(extent, int)
            or not 0 < extent <= _MAX_EXTENT
        ):
            raise ModelError(
                f"cannot fix the shape of {name!r}: {extent!r} is no extent (expected whole "
                "numbers from 1)",
                input=name,
            )
    extents = _extents(value)
    shown = _shown(extents)
    if extents is None:
        _set_shape(value, list(wanted))
        return
    if len(extents) != len(wanted):
        raise ModelError(
            f"cannot fix the shape of {name!r}: {_shown(wanted)} has {len(wanted)} extents "
            f"(the model has {len(extents)}: {shown})",
            input=name,
        )
    for axis, (old, new) in enumerate(zip(extents, wanted, strict=True)):
        if isinstance(old, int) and old != new:
            raise ModelError(
                f"cannot fix the shape of {name!r}: {new} at axis {axis} "
                f"(the model has {shown})",
                hint="only symbolic extents can be fixed",
                input=name,
                axis=axis,
            )
        if isinstance(old, str):
            other, where = symbols.setdefault(old, (new, name))
            if other != new:
                raise ModelError(
                    f"cannot fix the shape of {name!r}: extent {old!r} is {new} at axis {axis} "
                    f"(but {other} in {where!r})",
                    hint="extents of one name are one number",
                    input=name,
                    axis=axis,
                )
    _set_shape(value, list(wanted))


def _shown(extents: Iterable[_Extent] | None) -> str:
    if extents is None:
        return "?"
    return "x".join("?" if one is None else str(one) for one in extents) or "scalar"


def _extents(value: onnx_ir.Value) -> tuple[_Extent, ...] | None:
    if value.shape is None:
        return None
    return tuple(one if isinstance(one, int) else one.value for one in value.shape)


def _set_shape(value: onnx_ir.Value, extents: list[_Extent]) -> None:
    import onnx_ir as ir

    value.shape = ir.Shape(extents)


def _without_weights(model: onnx_ir.Model) -> onnx.ModelProto:
    """Serialize a copy whose big constants are inputs and whose inner values have no shape."""
    import onnx_ir as ir

    light = model.clone()
    light.ir_version = max(light.ir_version, 4)  # before, every initializer had to be an input
    bring_in(light, largest_bytes=_BIG_TENSOR_BYTES)
    graph = light.graph
    for value in list(graph.initializers.values()):
        tensor = value.const_value
        if tensor is not None and tensor.nbytes > _BIG_TENSOR_BYTES:
            value.shape, value.type = (
                ir.Shape(tensor.shape.numpy()),
                ir.TensorType(tensor.dtype),
            )
            del graph.initializers[value.name or ""]
            value.const_value = None
            graph.inputs.append(value)
    for node in list(graph):
        attribute = node.attributes.get("value") if node.op_type == "Constant" else None
        if attribute is None or attribute.type != ir.AttributeType.TENSOR:
            continue
        tensor = attribute.as_tensor()
        output = node.outputs[0]
        if tensor.nbytes <= _BIG_TENSOR_BYTES or output.is_graph_output():
            continue
        stand_in = ir.val(output.name or "", tensor.dtype, ir.Shape(tensor.shape.numpy()))
        output.replace_all_uses_with(stand_in)
        graph.remove(node)
        graph.inputs.append(stand_in)
    for value in _inner_values(graph):
        value.shape = None
        if not value.is_graph_output():
            value.type = None
    return ir.serde.serialize_model(light)


def _with_output_shapes(light: onnx.ModelProto) -> bytes:
    """Serialize with a shape at every output: the checker asks for one to be stated."""
    complete = type(light)()
    complete.CopyFrom(light)
    for value in complete.graph.output:
        if value.type.HasField("tensor_type"):
            value.type.tensor_type.shape.SetInParent()
    data: bytes = complete.SerializeToString()
    return data


def _inner_values(graph: onnx_ir.Graph) -> Iterator[onnx_ir.Value]:
    for node in graph.all_nodes():
        yield from node.outputs


def _refused(exc: ChildFailed, path: Path) -> ModelError:
    text = " ".join(str(exc).split())
    for prefix in ("[ShapeInferenceError] ", "(op_type:"):
        text = text.removeprefix(prefix) if prefix.startswith("[") else text
    if not exc.refused:
        return ModelError(
            f"cannot check {path}: {text}",
            hint="the file is damaged or was made to do harm; if you trust it, report it",
        )
    if exc.stage == "shapes":
        return ModelError(
            f"cannot open {path}: its shapes contradict each other: {text[:600]}",
            hint="export it again; with --shape, check the extents you gave",
        )
    return ModelError(
        f"cannot open {path}: the ONNX checker refuses it: {text[:600]}",
        hint="export it again with a current exporter",
    )


def _apply(graph: onnx_ir.Graph, inferred: onnx.GraphProto, symbols: frozenset[str]) -> None:
    found = {info.name: info for info in (*inferred.value_info, *inferred.output)}
    for node in graph:
        if node.op_type == "Constant":
            _describe_constant(node)
        for value in node.outputs:
            if value.name in found:
                _merge(value, found[value.name], symbols)
    mine = [node for node in graph if _bodies_of(node)]
    theirs = [node for node in inferred.node if any(_proto_bodies(node))]
    for node, proto in zip(mine, theirs, strict=True):
        bodies = _bodies_of(node)
        protos = {attribute.name: attribute for attribute in proto.attribute}
        for name, several in bodies.items():
            attribute = protos[name]
            others = [attribute.g] if attribute.HasField("g") else list(attribute.graphs)
            for body, other in zip(several, others, strict=True):
                _apply(body, other, symbols)


def _describe_constant(node: onnx_ir.Node) -> None:
    """Give a Constant's output the shape of its tensor: big ones were not sent to inference."""
    import onnx_ir as ir

    attribute = node.attributes.get("value")
    if attribute is not None and attribute.type == ir.AttributeType.TENSOR:
        tensor = attribute.as_tensor()
        node.outputs[0].shape = ir.Shape(tensor.shape.numpy())
        node.outputs[0].type = ir.TensorType(tensor.dtype)


def _bodies_of(node: onnx_ir.Node) -> dict[str, list[onnx_ir.Graph]]:
    import onnx_ir as ir

    bodies: dict[str, list[onnx_ir.Graph]] = {}
    for name, attribute in node.attributes.items():
        if attribute.type == ir.AttributeType.GRAPH:
            bodies[name] = [attribute.as_graph()]
        elif attribute.type == ir.AttributeType.GRAPHS:
            bodies[name] = list(attribute.as_graphs())
    return bodies


def _proto_bodies(node: onnx.NodeProto) -> Iterator[onnx.GraphProto]:
    for attribute in node.attribute:
        if attribute.HasField("g"):
            yield attribute.g
        yield from attribute.graphs


def _merge(value: onnx_ir.Value, info: onnx.ValueInfoProto, symbols: frozenset[str]) -> None:
    """Prefer what was inferred; keep a stated extent or name where inference knows none."""
    import onnx_ir as ir

    kind = ir.serde.deserialize_type_proto_for_type(info.type)
    if kind is not None:
        value.type = kind
    shape = ir.serde.deserialize_type_proto_for_shape(info.type)
    if shape is None:
        return
    new = [one if isinstance(one, int) else one.value for one in shape]
    old = _extents(value)
    if old is None or len(old) != len(new):
        old = (None,) * len(new)
    _set_shape(value, [_better(*pair, symbols) for pair in zip(new, old, strict=True)])


def _better(new: _Extent, old: _Extent, symbols: frozenset[str]) -> _Extent:
    """Choose between what was inferred and what the file says.

    Inference names an extent that it cannot know by itself, so such a name says nothing; but an
    exporter may use the same prefix for an input's extent, which does.
    """
    if new is None or (
        isinstance(new, str) and new.startswith(_INVENTED) and new not in symbols
    ):
        return old
    return new


def _symbols(graph: onnx_ir.Graph) -> frozenset[str]:
    found = (extent for value in graph.inputs for extent in _extents(value) or ())
    return frozenset(extent for extent in found if isinstance(extent, str))
