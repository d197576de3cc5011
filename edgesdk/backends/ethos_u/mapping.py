"""Foretell which operators the compiler places on an Ethos-U, and why not others.

The compiler looks at each operator by itself: what its constraints let through goes to the NPU
wherever it stands in the graph, in as many pieces as that makes. A node of an ONNX model is
drawn as the operator it is lowered to, before there is a TFLite file to judge.
"""

from __future__ import annotations

from edgesdk.backends.ethos_u.asked import Asked, Check
from edgesdk.backends.ethos_u.generic import GENERIC
from edgesdk.backends.ethos_u.shapes import NAMED, SHAPES
from edgesdk.backends.ethos_u.windows import WINDOWS, transposed_window
from edgesdk.backends.litert.rules import FLOAT_ONLY, why_not_lowered
from edgesdk.backends.litert.sketch import draw
from edgesdk.model.tflite_graph import TfliteGraph, TfliteOp
from edgesdk.model.values import NodeFacts
from edgesdk.profiles.constraint_values import ConstraintRules, Core

__all__ = ["CHECKS", "foretell", "is_compiled", "object_to", "why_not_placed"]

#: By the name that rules have for it, what is looked at.
CHECKS: dict[str, Check] = {**NAMED, "transposed-window": transposed_window}


def is_compiled(graph: TfliteGraph, rules: ConstraintRules) -> bool:
    """Say whether the compiler has been at a file before."""
    return any(op.is_custom and op.name == rules.compiled_op for op in graph.ops)


def foretell(graph: TfliteGraph, rules: ConstraintRules, core: Core) -> dict[int, str]:
    """Say which operators are left to the processor, by index, and why."""
    if is_compiled(graph, rules):
        return {
            op.index: f"{rules.program} left it out"
            for op in graph.ops
            if not (op.is_custom and op.name == rules.compiled_op)
        }
    return {
        op.index: reason
        for op in graph.ops
        if (reason := object_to(graph, op, core)) is not None
    }


def object_to(
    graph: TfliteGraph, op: TfliteOp, core: Core, *, is_drawn: bool = False
) -> str | None:
    """Give the first objection to an operator, or None; see `Asked` for ``is_drawn``."""
    limits = None if op.is_custom else core.operators.get(op.name)
    if limits is None:
        return f"it has no {op.name}"
    asked = Asked(graph, op, core, limits, is_drawn)
    checks = (*GENERIC, *WINDOWS, *SHAPES, *(CHECKS[name] for name in limits.checks))
    for check in checks:
        if (reason := check(asked)) is not None:
            return reason
    return None


def why_not_placed(node: NodeFacts, core: Core) -> str | None:
    """Say why the compiler leaves what an ONNX node is lowered to, or None if it takes it."""
    if (reason := why_not_lowered(node)) is not None:
        return reason
    drawing = draw([node], ())
    for op in drawing.graph.ops:
        if op.name in FLOAT_ONLY:
            return f"it is lowered to {op.name} in float"
        if (reason := object_to(drawing.graph, op, core, is_drawn=True)) is not None:
            return reason
    return None
