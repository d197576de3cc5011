"""The source graph as the build will see it, on facts alone: simplified and prepared.

What simplifying does to the numbers is not known here; what it does to the shape of the graph
is: constants are moved about before anything runs, idle nodes vanish, and factors and offsets
go into the operator before them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace

from edgesdk.model.values import NodeFacts
from edgesdk.tensors import TensorInfo

__all__ = ["AsBuilt", "as_built"]

_MOVES_CONSTANTS = frozenset(
    {"Cast", "Identity", "Reshape", "Squeeze", "Transpose", "Unsqueeze", "Flatten"}
)
_OURS = ("", "ai.onnx")


@dataclass(slots=True, kw_only=True)
class AsBuilt:
    """The nodes that are left.

    Attributes:
        nodes: What is left, by the index of the source node, in the order of the graph.
        hosts: Node by the node that became a part of it.
        gone: Why a node is no part of the graph that is built.
        constants: Names of all tensors that are known before the graph runs.
    """

    nodes: dict[int, NodeFacts] = field(default_factory=dict)
    hosts: dict[int, int] = field(default_factory=dict)
    gone: dict[int, str] = field(default_factory=dict)
    constants: set[str] = field(default_factory=set)

    def host(self, index: int) -> int:
        """Give the node that a node is part of: itself, where nothing took it in."""
        while index in self.hosts:
            index = self.hosts[index]
        return index


def as_built(
    nodes: Sequence[NodeFacts],
    outputs: Collection[str],
    *,
    joins_bias: bool = False,
    keep: Collection[str] = (),
    folded: Collection[int] = (),
) -> AsBuilt:
    """Simplify on facts.

    Args:
        nodes: The source graph.
        outputs: The names of the graph's outputs, which stay.
        joins_bias: Whether a MatMul and the Add of a constant become one Gemm.
        keep: Node names and operators whose nodes are not joined.
        folded: Nodes that are known to become constants.
    """
    done = AsBuilt()
    _drop_idle(done, nodes, outputs, folded)
    uses = Counter(name for node in done.nodes.values() for name in node.inputs)
    makers: dict[str, int] = {}
    for index, node in list(done.nodes.items()):
        for position, name in enumerate(node.inputs):
            host = done.nodes.get(makers.get(name, -1))
            if host is None or uses[name] != 1 or name in outputs:
                continue
            if _is_folded(host, node, position):
                merged = host
            elif (
                joins_bias and _is_bias_of(host, node, position) and not _kept(host, node, keep)
            ):
                merged = _with_bias(host, node, position)
            else:
                continue
            done.nodes[host.index] = replace(
                merged, outputs=node.outputs[:1], output_types=node.output_types[:1]
            )
            done.hosts[index] = host.index
            del done.nodes[index]
            makers[node.outputs[0]] = host.index
            break
        else:
            makers.update(dict.fromkeys(filter(None, node.outputs), index))
    return done


def _drop_idle(
    done: AsBuilt,
    nodes: Sequence[NodeFacts],
    outputs: Collection[str],
    folded: Collection[int],
) -> None:
    """Follow constants to where they are read, and values through nodes that do nothing."""
    same: dict[str, str] = {}
    read = {name for node in nodes for name in node.inputs}
    for node in nodes:
        flags = (*node.constant_inputs, *(False for _ in node.inputs))
        done.constants.update(n for n, known in zip(node.inputs, flags, strict=False) if known)
        inputs = tuple(same.get(name, name) for name in node.inputs)
        known = tuple(bool(name) and name in done.constants for name in inputs)
        ours = node.domain in _OURS
        moves = node.op in _MOVES_CONSTANTS and all(
            k for name, k in zip(inputs, known, strict=True) if name
        )
        if node.index in folded or (ours and (node.op == "Constant" or (moves and any(known)))):
            done.constants.update(node.outputs)
            done.gone[node.index] = "the build folds it into a constant"
        elif ours and _is_idle(node, read, outputs):
            same[node.outputs[0]] = inputs[0]
            done.gone[node.index] = "it does nothing, and the build takes it out"
        else:
            done.nodes[node.index] = replace(node, inputs=inputs, constant_inputs=known)


def _is_idle(node: NodeFacts, read: Collection[str], outputs: Collection[str]) -> bool:
    if node.outputs[0] in outputs:
        return False
    if node.op == "Identity":
        return True
    if node.op != "Dropout" or node.since_version < 7:
        return False
    others = [name for name in node.outputs[1:] if name in read or name in outputs]
    return not others and (len(node.inputs) < 3 or not node.inputs[2])


def _is_folded(conv: NodeFacts, node: NodeFacts, position: int) -> bool:
    """Say whether simplifying folds ``node`` into the convolution before it."""
    if conv.op not in ("Conv", "ConvTranspose") or {conv.domain, node.domain} - set(_OURS):
        return False
    if not all(conv.constant_inputs[1:]):
        return False
    if node.op == "BatchNormalization":
        trained = node.ints.get("training_mode", (0,))[0]
        return not position and not trained and node.constant_inputs[1:5] == (True,) * 4
    if node.op in ("Mul", "Add") or (node.op in ("Sub", "Div") and not position):
        return "axis" not in node.ints and _is_by_channel(conv, node, 1 - position)
    return False


def _is_by_channel(conv: NodeFacts, node: NodeFacts, position: int) -> bool:
    """Say whether an operand is one constant, or one for each channel a convolution gives."""
    weight, result = _type_of(conv, 1), conv.output_types[0] if conv.output_types else None
    other = _type_of(node, position)
    if weight is None or result is None or other is None or not node.constant_inputs[position]:
        return False
    rank = len(result.shape)
    channels = weight.shape[0]
    if conv.op == "ConvTranspose":
        group, each = conv.ints.get("group", (1,))[0], weight.shape[1]
        channels = each * group if isinstance(each, int) else None
    full = (1,) * (rank - len(other.shape)) + other.shape
    return full == (1,) * rank or full == (1, channels, *(1,) * (rank - 2))


def _is_bias_of(product: NodeFacts, node: NodeFacts, position: int) -> bool:
    """Say whether ``node`` adds one constant for each column of a product of two dimensions."""
    if product.op != "MatMul" or node.op != "Add" or product.domain or node.domain:
        return False
    source, weight, bias = (
        _type_of(product, 0),
        _type_of(product, 1),
        _type_of(node, 1 - position),
    )
    if source is None or weight is None or bias is None:
        return False
    if product.constant_inputs != (False, True) or not node.constant_inputs[1 - position]:
        return False
    wide = weight.shape[-1]
    return (
        len(source.shape) == len(weight.shape) == 2
        and source.dtype == "float32"
        and bias.shape in ((wide,), (1, wide))
    )


def _kept(product: NodeFacts, node: NodeFacts, keep: Collection[str]) -> bool:
    return not {product.name, product.op, node.name, node.op}.isdisjoint(keep)


def _with_bias(product: NodeFacts, node: NodeFacts, position: int) -> NodeFacts:
    return replace(
        product,
        op="Gemm",
        inputs=(*product.inputs, node.inputs[1 - position]),
        input_types=(*product.input_types, _type_of(node, 1 - position)),
        constant_inputs=(*product.constant_inputs, True),
    )


def _type_of(node: NodeFacts, position: int) -> TensorInfo | None:
    return node.input_types[position] if position < len(node.input_types) else None
