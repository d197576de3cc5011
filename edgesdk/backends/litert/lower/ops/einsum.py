"""Einsum of one or two operands: axes become batch, rows, columns and sum of a product."""

from __future__ import annotations

import math
from dataclasses import dataclass

from edgesdk.backends.litert.lower.errors import CannotLower
from edgesdk.backends.litert.lower.graph import Options, Tensor
from edgesdk.backends.litert.lower.maths import Maths
from edgesdk.backends.litert.lower.registry import lowers
from edgesdk.backends.litert.lower.site import Site
from edgesdk.model.values import NodeFacts

__all__: list[str] = []

_INTO = ("BATCH_MATMUL", "SUM", "TRANSPOSE", "RESHAPE")


@dataclass(frozen=True, slots=True)
class _Equation:
    """Letters of the operands' axes, and of the result's."""

    terms: tuple[str, ...]
    result: str


def _parse(text: str) -> _Equation | str:
    """Read an equation, or say what is wrong with it."""
    plain = text.replace(" ", "")
    if "." in plain:
        return "an ellipsis in its equation"
    left, arrow, right = plain.partition("->")
    terms = tuple(left.split(","))
    letters = "".join(terms)
    if not (letters + right).isalpha():
        return f"its equation is {text[:60]!r}"
    if not arrow:
        right = "".join(sorted(c for c in set(letters) if letters.count(c) == 1))
    if any(len(set(term)) != len(term) for term in (*terms, right)):
        return "a letter of its equation is repeated in a term"
    if not set(right) <= set(letters):
        return f"its equation is {text[:60]!r}"
    return _Equation(terms, right)


def _why_not(node: NodeFacts) -> str | None:
    if len(node.inputs) > 2:
        return f"{len(node.inputs)} operands"
    parsed = _parse(node.strings.get("equation", ""))
    if isinstance(parsed, str):
        return parsed
    for value in node.input_types:
        if value is not None and value.dtype not in ("float32", "float16", ""):
            return f"it computes in {value.dtype}"
    return None


@lowers("Einsum", into=_INTO, why_not=_why_not)
def lower_einsum(site: Site) -> None:
    """Lower a sum of products over letters."""
    equation = _parse(site.text("equation"))
    if isinstance(equation, str):
        raise CannotLower(equation)
    tensors = [
        _summed(site, site.take_float(position), term, equation, position)
        for position, term in enumerate(equation.terms)
    ]
    if len(tensors) == 1:
        ((tensor, letters),) = tensors
    else:
        (a, first), (b, second) = tensors
        tensor, letters = _product(site, (a, b), (first, second), equation.result)
    site.give(site.builder.permuted(tensor, [letters.index(c) for c in equation.result]))


def _summed(
    site: Site, tensor: Tensor, term: str, equation: _Equation, position: int
) -> tuple[Tensor, str]:
    """Sum over letters that nothing else has."""
    if len(term) != len(tensor.shape):
        raise CannotLower(f"its term {term!r} has {len(tensor.shape)} dimensions")
    others = "".join(t for i, t in enumerate(equation.terms) if i != position)
    alone = [i for i, c in enumerate(term) if c not in equation.result and c not in others]
    left = "".join(c for i, c in enumerate(term) if i not in alone)
    total = Maths(site).reduce("SUM", tensor, alone)
    shape = [extent for i, extent in enumerate(tensor.shape) if i not in alone]
    return site.builder.reshaped(total, shape), left


def _product(
    site: Site, operands: tuple[Tensor, Tensor], terms: tuple[str, str], result: str
) -> tuple[Tensor, str]:
    """Multiply two operands: letters of both and the result are a batch, others are summed."""
    builder = site.builder
    (a, b), (first, second) = operands, terms
    batch = [c for c in first if c in second and c in result]
    inner = [c for c in first if c in second and c not in result]
    rows = [c for c in first if c not in second]
    columns = [c for c in second if c not in first]
    sizes = dict(zip(first, a.shape, strict=True)) | dict(zip(second, b.shape, strict=True))
    for letter in (*batch, *inner):
        if a.shape[first.index(letter)] != b.shape[second.index(letter)]:
            raise CannotLower(f"its letter {letter!r} stands for two extents")

    def matrix(tensor: Tensor, term: str, *groups: list[str]) -> Tensor:
        turned = builder.permuted(tensor, [term.index(c) for group in groups for c in group])
        return builder.reshaped(turned, [math.prod(sizes[c] for c in g) for g in groups])

    left = matrix(a, first, batch, rows, inner)
    right = matrix(b, second, batch, inner, columns)
    shape = (left.shape[0], left.shape[1], right.shape[2])
    options: Options = ("BatchMatMulOptions", {"adjX": False, "adjY": False})
    made = site.emit("BATCH_MATMUL", [left, right], shape, options=options)
    letters = "".join((*batch, *rows, *columns))
    return builder.reshaped(made, [sizes[c] for c in letters]), letters
