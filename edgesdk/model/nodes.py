"""Describe the nodes of a graph as values, so that rules about them need no ONNX library."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgesdk.model.values import NodeFacts
from edgesdk.tensors import TensorInfo

if TYPE_CHECKING:
    import onnx_ir

__all__ = ["bodies_of", "captured_names", "is_constant", "node_facts", "tensor_info"]


def node_facts(model: onnx_ir.Model) -> tuple[NodeFacts, ...]:
    """Describe every top-level node, in the order of the graph.

    Nodes in the bodies of control flow are not listed on their own: they run where the node
    around them runs, which names their operators in ``subgraph_ops``.
    """
    return tuple(
        _facts(index, node, dict(model.graph.opset_imports))
        for index, node in enumerate(model.graph)
    )


def tensor_info(value: onnx_ir.Value) -> TensorInfo:
    """Describe a value of a graph; an unknown rank reads as an empty shape with no dtype lost.

    A value that is no tensor has a dtype like ``"sequence"``.
    """
    return TensorInfo(name=value.name or "", dtype=_dtype(value), shape=_shape(value))


def is_constant(value: onnx_ir.Value | None) -> bool:
    """Say whether a value is known before the graph runs: an initializer or a Constant."""
    if value is None or value.is_graph_input():
        return False
    producer = value.producer()
    if producer is not None:
        return producer.op_type == "Constant" and producer.domain in ("", "ai.onnx")
    return value.const_value is not None


def _facts(index: int, node: onnx_ir.Node, opsets: dict[str, int]) -> NodeFacts:
    ints: dict[str, tuple[int, ...]] = {}
    floats: dict[str, tuple[float, ...]] = {}
    strings: dict[str, str] = {}
    for name, attribute in node.attributes.items():
        kind, value = attribute.type.name, attribute.value
        if kind in ("INT", "INTS"):
            ints[name] = (int(value),) if kind == "INT" else tuple(int(one) for one in value)
        elif kind in ("FLOAT", "FLOATS"):
            floats[name] = (
                (float(value),) if kind == "FLOAT" else tuple(float(one) for one in value)
            )
        elif kind == "STRING":
            strings[name] = (
                value if isinstance(value, str) else bytes(value).decode("utf-8", "replace")
            )
    return NodeFacts(
        index=index,
        name=node.name or "",
        op=node.op_type,
        domain=_domain(node),
        since_version=since_version(node, opsets),
        inputs=tuple((value.name or "") if value is not None else "" for value in node.inputs),
        outputs=tuple(value.name or "" for value in node.outputs),
        input_types=tuple(_known(value) for value in node.inputs),
        output_types=tuple(_known(value) for value in node.outputs),
        ints=ints,
        floats=floats,
        strings=strings,
        constant_inputs=tuple(is_constant(value) for value in node.inputs),
        subgraph_ops=tuple(sorted(_body_ops(node))),
        captures=captured_names(node),
    )


def since_version(node: onnx_ir.Node, opsets: dict[str, int]) -> int:
    """Give the opset version that defined the node's operator as it is used; 0 if unknown."""
    import onnx

    domain = _domain(node)
    version = opsets.get(domain, 0)
    try:
        return int(onnx.defs.get_schema(node.op_type, version, domain).since_version)
    except onnx.defs.SchemaError:
        return 0


def _domain(node: onnx_ir.Node) -> str:
    return "" if node.domain == "ai.onnx" else node.domain


def _body_ops(node: onnx_ir.Node) -> set[str]:
    ops: set[str] = set()
    for attribute in node.attributes.values():
        for body in bodies_of(attribute):
            ops.update(inner.op_type for inner in body.all_nodes())
    return ops


def captured_names(node: onnx_ir.Node) -> tuple[str, ...]:
    """Give the names of values that a node's bodies read and that are made around them."""
    found: dict[str, None] = {}
    for attribute in node.attributes.values():
        for body in bodies_of(attribute):
            inner = set(body.all_nodes())
            for each in inner:
                for value in each.inputs:
                    if value is None or not value.name:
                        continue
                    maker = value.producer()
                    if maker is None:
                        inside = value.graph is not None and value.graph is not node.graph
                    else:
                        inside = maker in inner
                    if not inside:
                        found[value.name] = None
    return tuple(sorted(found))


def bodies_of(attribute: onnx_ir.Attr) -> list[onnx_ir.Graph]:
    """Give the graphs that an attribute holds; none for most."""
    import onnx_ir as ir

    if attribute.type == ir.AttributeType.GRAPH:
        return [attribute.as_graph()]
    if attribute.type == ir.AttributeType.GRAPHS:
        return list(attribute.as_graphs())
    return []


def _known(value: onnx_ir.Value | None) -> TensorInfo | None:
    if value is None or value.type is None or value.shape is None or not value.name:
        return None
    return tensor_info(value)


def _dtype(value: onnx_ir.Value) -> str:
    import onnx_ir as ir

    kind = value.type
    if kind is None:
        return ""
    if not isinstance(kind, ir.TensorType):
        return type(kind).__name__.removesuffix("Type").lower()
    special = {"FLOAT": "float32", "DOUBLE": "float64"}
    return special.get(kind.dtype.name, kind.dtype.name.lower())


def _shape(value: onnx_ir.Value) -> tuple[int | str | None, ...]:
    if value.shape is None:
        return ()
    return tuple(extent if isinstance(extent, int) else extent.value for extent in value.shape)
