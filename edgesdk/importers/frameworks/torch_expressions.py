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
_NUMBER = re.compile(r"-?[0-9.]{1,40}(e[+-]?[0-9]{1,3})?")
_CONSTANTS = frozenset({"oo", "int_oo", "true", "false", "True", "False"})
#: Those of torch.utils._sympy.functions that keep numbers small, and what sympy writes.
_FUNCTIONS = frozenset({
    "FloorDiv", "ModularIndexing", "Where", "PythonMod", "Mod", "CleanDiv", "CeilToInt",
    "FloorToInt", "CeilDiv", "RShift", "PowByNatural", "FloatTrueDiv", "IntTrueDiv",
    "IsNonOverlappingAndDenseIndicator", "TruncToFloat", "TruncToInt", "RoundToInt",
    "RoundDecimal", "ToFloat", "Identity", "Max", "Min", "Eq", "Ne", "Lt", "Le", "Gt", "Ge",
    "And", "Or", "Not", "Abs", "floor", "ceiling", "sqrt", "Add", "Mul", "Pow", "Integer",
    "Rational", "Equality", "Unequality", "LessThan", "StrictLessThan", "GreaterThan",
    "StrictGreaterThan",
})  # fmt: skip
_POWERS = frozenset({"Pow", "PowByNatural"})
_OPERATORS = (
    ast.Add, ast.Sub, ast.Mult, ast.Div, ast.FloorDiv, ast.Mod, ast.Pow,
    ast.USub, ast.UAdd, ast.Invert, ast.Not, ast.BitAnd, ast.BitOr, ast.And, ast.Or,
    ast.Eq, ast.NotEq, ast.Lt, ast.LtE, ast.Gt, ast.GtE,
)  # fmt: skip
_PLAIN_TYPES = frozenset({"builtins.tuple", "builtins.list"})
_KEYED_TYPES = frozenset({"builtins.dict", "collections.OrderedDict"})


def why_no_expression(text: object) -> str | None:
    """Say why a text is no expression over sizes; None if it is one.

    torch.export writes them as sympy's own constructors, such as
    ``Mul(Integer(2), Symbol('s0', integer=True))``, older versions as ``2*s0``.
    """
    if not isinstance(text, str) or len(text) > _MAX_TEXT:
        return "it is too long, or no text"
    try:
        return _why_not(ast.parse(text.strip(), mode="eval").body, _MAX_DEPTH)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return "it cannot be parsed"


def _why_not(node: ast.AST, depth: int) -> str | None:
    parts: list[ast.AST] = []
    reason: str | None = None
    if depth == 0:
        reason = "it is nested too deep"
    elif isinstance(node, (ast.Name, ast.Constant)):
        reason = _why_not_leaf(node)
    elif isinstance(node, ast.Call):
        reason, parts = _why_not_call(node)
    elif isinstance(node, ast.BinOp) and isinstance(node.op, _OPERATORS):
        parts = [node.left, node.right]
        if isinstance(node.op, ast.Pow) and not _is_small(node.right):
            reason = "it raises to a large power"
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, _OPERATORS):
        parts = [node.operand]
    elif isinstance(node, ast.BoolOp):
        parts = [*node.values]
    elif isinstance(node, ast.Compare) and all(isinstance(op, _OPERATORS) for op in node.ops):
        parts = [node.left, *node.comparators]
    else:
        reason = f"it holds {type(node).__name__}"
    if reason is not None:
        return reason
    return next(filter(None, (_why_not(part, depth - 1) for part in parts)), None)


def _why_not_leaf(node: ast.Name | ast.Constant) -> str | None:
    if isinstance(node, ast.Name):
        known = node.id in _CONSTANTS or _SYMBOL.fullmatch(node.id) is not None
        return None if known else f"it names {node.id[:50]!r}"
    number = isinstance(node.value, (int, float)) and abs(node.value) < 1 << 64
    return None if number else "it holds more than numbers"


def _why_not_call(node: ast.Call) -> tuple[str | None, list[ast.AST]]:
    """Judge a call, and give those of its arguments that have to be judged as well."""
    name = node.func.id if isinstance(node.func, ast.Name) else ""
    if name in ("Symbol", "Float"):
        first = node.args[0] if len(node.args) == 1 else None
        text = first.value if isinstance(first, ast.Constant) else None
        form = _SYMBOL if name == "Symbol" else _NUMBER
        if not isinstance(text, str) or not form.fullmatch(text):
            return f"it makes a {name} of something else", []
        return None, [each.value for each in node.keywords]
    if name not in _FUNCTIONS:
        return "it calls something unknown", []
    if node.keywords:
        return "it calls with keywords", []
    if name in _POWERS and not (len(node.args) == 2 and _is_small(node.args[1])):
        return "it raises to a large power", []
    return None, [*node.args]


def _is_small(node: ast.AST) -> bool:
    """Tell whether an exponent is a small number that stands there."""
    if isinstance(node, ast.UnaryOp):
        return _is_small(node.operand)
    if isinstance(node, ast.Call):
        name = node.func.id if isinstance(node.func, ast.Name) else ""
        return name in ("Integer", "Rational") and all(map(_is_small, node.args))
    return (
        isinstance(node, ast.Constant)
        and isinstance(node.value, int)
        and abs(node.value) <= _MAX_EXPONENT
    )


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
