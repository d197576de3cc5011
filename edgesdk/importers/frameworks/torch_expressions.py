"""Say whether a program's expressions and containers are what torch.export writes.

PyTorch reads sizes like ``2*s0 + 1`` with sympy, which evaluates the text as Python, and finds
containers by a module's name, which it imports. So both are taken apart here first and only
what a size or a plain container can be is let through.
"""

from __future__ import annotations

import ast
import json
import re
from typing import Any

__all__ = ["plain_container", "why_no_expression"]

_MAX_TEXT = 4000
_MAX_DEPTH = 50
_MAX_EXPONENT = 16
#: What torch.export calls its symbols: s0, u3, zf1 and the like.
_SYMBOL = re.compile(r"[a-z]{1,3}[0-9]{1,6}(_[0-9]{1,6})?")
_CONSTANTS = frozenset({"oo", "int_oo", "true", "false", "True", "False"})
#: Those of torch.utils._sympy.functions, and a few of sympy's own.
_FUNCTIONS = frozenset({
    "FloorDiv", "ModularIndexing", "Where", "PythonMod", "Mod", "CleanDiv", "CeilToInt",
    "FloorToInt", "CeilDiv", "LShift", "RShift", "PowByNatural", "FloatPow", "FloatTrueDiv",
    "IntTrueDiv", "IsNonOverlappingAndDenseIndicator", "TruncToFloat", "TruncToInt",
    "RoundToInt", "RoundDecimal", "ToFloat", "Identity", "Max", "Min", "Eq", "Ne", "Lt", "Le",
    "Gt", "Ge", "And", "Or", "Not", "Abs", "floor", "ceiling", "sqrt",
})  # fmt: skip
_OPERATORS = (
    ast.Add, ast.Sub, ast.Mult, ast.Div, ast.FloorDiv, ast.Mod, ast.Pow,
    ast.USub, ast.UAdd, ast.Invert, ast.Not, ast.BitAnd, ast.BitOr, ast.And, ast.Or,
    ast.Eq, ast.NotEq, ast.Lt, ast.LtE, ast.Gt, ast.GtE,
)  # fmt: skip
_SHAPES = (ast.Expression, ast.BinOp, ast.UnaryOp, ast.BoolOp, ast.Compare, ast.Load)
_PLAIN_TYPES = frozenset({"builtins.tuple", "builtins.list"})
_KEYED_TYPES = frozenset({"builtins.dict", "collections.OrderedDict"})


def why_no_expression(text: object) -> str | None:
    """Say why a text is no expression over sizes; None if it is one."""
    if not isinstance(text, str) or len(text) > _MAX_TEXT:
        return "it is too long, or no text"
    try:
        tree = ast.parse(text.strip(), mode="eval")
        nodes = list(ast.walk(tree))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return "it cannot be parsed"
    for node in nodes:
        if (reason := _why_not_node(node)) is not None:
            return reason
    return None


def _why_not_node(node: ast.AST) -> str | None:
    reason: str | None = None
    if isinstance(node, ast.Name):
        known = node.id in _FUNCTIONS or node.id in _CONSTANTS
        if not known and not _SYMBOL.fullmatch(node.id):
            reason = f"it names {node.id[:50]!r}"
    elif isinstance(node, ast.Constant):
        if not isinstance(node.value, (int, float)) or abs(node.value) >= 1 << 64:
            reason = "it holds more than numbers"
    elif isinstance(node, ast.Call):
        if not isinstance(node.func, ast.Name) or node.func.id not in _FUNCTIONS:
            reason = "it calls something unknown"
        elif node.keywords:
            reason = "it calls with keywords"
    elif isinstance(node, ast.BinOp) and isinstance(node.op, ast.Pow):
        power = node.right
        small = isinstance(power, ast.Constant) and isinstance(power.value, int)
        if not small or not 0 <= ast.literal_eval(power) <= _MAX_EXPONENT:
            reason = "it raises to a large power"
    elif not isinstance(node, (*_OPERATORS, *_SHAPES)):
        reason = f"it holds {type(node).__name__}"
    return reason


def plain_container(text: object) -> str:
    """Describe a container of inputs or outputs by plain ones only.

    Whatever is neither a tuple, a list nor a dict keyed by text (an output class of a library,
    say) becomes a tuple of the same leaves, which loses its field names and nothing else.

    Raises:
        ValueError: It is no description of a container.
    """
    if not isinstance(text, str):
        raise ValueError("it is no text")
    parsed = json.loads(text)
    if not isinstance(parsed, list) or len(parsed) != 2 or parsed[0] != 1:
        raise ValueError("it is of an unknown kind")
    return json.dumps([1, _plain(parsed[1], _MAX_DEPTH)])


def _are_plain_keys(keys: object, count: int) -> bool:
    # they become names of parameters in Python code that PyTorch generates and runs
    return (
        isinstance(keys, list)
        and len(keys) == count
        and all(type(key) is int or (type(key) is str and key.isidentifier()) for key in keys)
    )


def _plain(spec: Any, depth: int) -> dict[str, Any]:
    if depth == 0:
        raise ValueError("it is too deep")
    if not isinstance(spec, dict) or not isinstance(spec.get("children_spec"), list):
        raise ValueError("it is no container")
    children = [_plain(child, depth - 1) for child in spec["children_spec"]]
    name, context = spec.get("type"), "null"
    if name is None:
        if children:
            raise ValueError("a leaf has children")
        return {"type": None, "context": None, "children_spec": []}
    if name in _KEYED_TYPES:
        keys = json.loads(spec["context"]) if isinstance(spec.get("context"), str) else None
        if _are_plain_keys(keys, len(children)):
            context = json.dumps(keys)
        else:
            name = "builtins.tuple"
    elif name not in _PLAIN_TYPES:
        name = "builtins.tuple"
    return {"type": name, "context": context, "children_spec": children}
