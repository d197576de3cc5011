"""What a build in 8 bits leaves in float, by the rules that lay out the graph itself."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping

from edgesdk.model.values import NodeFacts
from edgesdk.profiles.values import SchemeRules
from edgesdk.quantize.lonely import ALONE, Kernel, find_lonely, only_a_part, roles_of
from edgesdk.quantize.scope import WEIGHT_INPUT, data_inputs, why_float

__all__ = ["why_left"]


def why_left(
    nodes: Mapping[int, NodeFacts],
    rules: SchemeRules,
    *,
    keep_float: Collection[str],
    inputs: Collection[str],
    outputs: Collection[str],
) -> dict[int, str | None]:
    """Say of every node why it stays in float, or None.

    Args:
        nodes: The graph as it will be built, by index.
        rules: What the kernels want.
        keep_float: Node names and operators that the recipe keeps in float.
        inputs: The names of the graph's inputs.
        outputs: The names of the graph's outputs.
    """
    roles = roles_of(rules)
    uses = Counter(name for node in nodes.values() for name in node.inputs)
    readers = {name: node for node in nodes.values() for name in node.inputs}
    reasons: dict[int, str | None] = {}
    absorbed: dict[int, int] = {}
    kernels: dict[str, Kernel] = {}
    for index, node in nodes.items():
        if index in absorbed:
            continue
        reason = why_float(node, rules, keep_float)
        if reason is None and node.op not in roles:
            reason = only_a_part(node.op)
        reasons[index] = reason
        if reason is not None:
            continue
        last = node
        after = readers.get(node.outputs[0]) if uses[node.outputs[0]] == 1 else None
        is_end = node.outputs[0] in outputs
        if after is not None and not is_end and _absorbs(node, after, rules, keep_float):
            absorbed[after.index] = index
            last = after
        kernels[str(index)] = Kernel(
            role=roles[node.op], reads=_reads(node), results=tuple(filter(None, last.outputs))
        )
    if rules.placement != "everything":
        reasons.update({int(key): ALONE for key in find_lonely(kernels, inputs)})
    reasons.update({index: reasons[host] for index, host in absorbed.items()})
    return reasons


def _reads(node: NodeFacts) -> tuple[str, ...]:
    """Give the activations that a kernel reads in 8 bits."""
    positions = (0,) if node.op in WEIGHT_INPUT else data_inputs(node.op, len(node.inputs))
    return tuple(
        node.inputs[position]
        for position in positions
        if node.inputs[position] and not node.constant_inputs[position]
    )


def _absorbs(
    node: NodeFacts, after: NodeFacts, rules: SchemeRules, keep_float: Collection[str]
) -> bool:
    """Say whether the kernel of ``node`` takes up the activation after it."""
    if after.op not in rules.fused_after.get(node.op, ()) or after.domain not in (
        "",
        "ai.onnx",
    ):
        return False
    if after.inputs[0] != node.outputs[0] or {after.name, after.op} & set(keep_float):
        return False
    bounds = zip(after.inputs[1:3], after.constant_inputs[1:3], strict=True)
    return after.op != "Clip" or all(known or not name for name, known in bounds)
