"""Gemm and MatMul: FULLY_CONNECTED where one side is constant, else BATCH_MATMUL."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from edgesdk.backends.litert.lower.errors import CannotLower
from edgesdk.backends.litert.lower.graph import Grid, Tensor
from edgesdk.backends.litert.lower.registry import lowers
from edgesdk.backends.litert.lower.site import ACTIVATIONS, Held, Site
from edgesdk.backends.litert.lower.weights import bias_of, kernel_of
from edgesdk.model.values import NodeFacts

__all__: list[str] = []

_MOST_RANK = 5


def _constant(node: NodeFacts, position: int) -> bool:
    return position < len(node.constant_inputs) and node.constant_inputs[position]


def _rank(node: NodeFacts, position: int) -> int:
    found = node.input_types[position] if position < len(node.input_types) else None
    return 0 if found is None else len(found.shape)


def _is_dense(node: NodeFacts) -> bool:
    return _constant(node, 1) and _rank(node, 1) in (0, 2)


def _into(node: NodeFacts) -> tuple[str, ...]:
    main = "FULLY_CONNECTED" if _is_dense(node) else "BATCH_MATMUL"
    return main, "ADD", "MUL", "TRANSPOSE", "RESHAPE"


def _why_not_dense(node: NodeFacts) -> str | None:
    for value in node.input_types:
        # what is of 8 or 16 bits here stands for quantized numbers
        if value is not None and value.dtype in ("int32", "int64", "bool"):
            return f"it computes in {value.dtype}"
    return None


def _why_not_matmul(node: NodeFacts) -> str | None:
    if not _is_dense(node) and max(_rank(node, 0), _rank(node, 1)) > _MOST_RANK:
        return f"a product over more than {_MOST_RANK} dimensions"
    return _why_not_dense(node)


@lowers("MatMul", into=_into, why_not=_why_not_matmul, fuses=False)
def lower_matmul(site: Site) -> None:
    """Lower a product whose leading axes are a batch."""
    if site.held(1).tensor.data is not None and len(site.shape(1)) == 2:
        _dense(site, turned=False)
        return
    left, right = site.held(0), site.held(1)
    grid = site.kernel_grid(0, 1)
    out = site.out_shape()
    shape = list(out)
    if len(left.order) == 1:
        shape.insert(max(len(out) - 1, 0), 1)
    if len(right.order) == 1:
        shape.append(1)
    result = _product(site, _as_matrix(site, left, 0), _as_matrix(site, right, 1), shape, grid)
    site.give(site.builder.reshaped(result, out))


@lowers("Gemm", into=_into, why_not=_why_not_dense, fuses=True)
def lower_gemm(site: Site) -> None:
    """Lower ``alpha * A @ B + beta * C``."""
    constant = site.held(1).tensor.data is not None
    if constant and _bias_fits(site):
        _dense(site, turned=bool(site.number("transB")))
        return
    left, right = site.held(0), site.held(1)
    if site.number("transA"):
        left = _swapped(left)
    if site.number("transB"):
        right = _swapped(right)
    tail = ACTIVATIONS[site.activation]
    left = Held(site.builder.in_float(left.tensor), left.order)
    right = Held(site.builder.in_float(right.tensor), right.order)
    shape = site.out_shape()
    result = _product(site, left, right, shape, None)
    if site.real("alpha", 1.0) != 1.0:
        result = _scaled(site, result, site.real("alpha", 1.0))
    if site.has(2):
        bias = site.take_float(2)
        if site.real("beta", 1.0) != 1.0:
            bias = _scaled(site, bias, site.real("beta", 1.0))
        options = ("AddOptions", {"fusedActivationFunction": tail})
        result = site.emit("ADD", [result, bias], shape, options=options)
    elif tail:
        result = site.emit(site.activation, [result], shape)
    site.give(result)


def _dense(site: Site, *, turned: bool) -> None:
    """Lower a product with constant weights; ``turned`` says they are (out, in) already."""
    out_axis = 0 if turned else 1
    kernel = kernel_of(site, out_axis)
    weights = kernel.weights
    if weights.ndim != 2:
        raise CannotLower(f"its weights have {weights.ndim} dimensions")
    alpha = site.real("alpha", 1.0)
    if alpha != 1.0 and kernel.grid is not None:
        if not np.isfinite(alpha) or alpha <= 0:
            raise CannotLower(f"its alpha is {alpha:g} on quantized weights")
        scales = tuple(float(np.float32(each * alpha)) for each in kernel.scales)
        kernel = replace(kernel, scales=scales)
    elif alpha != 1.0:
        weights = (weights * np.float32(alpha)).astype(np.float32)
    if not turned:
        weights = weights.T
    order = (1, 0) if site.number("transA") else None
    read = site.take_on(0, kernel.read, order)
    shape = site.out_shape()
    if read.shape[-1] != weights.shape[1]:
        raise CannotLower(f"it multiplies {read.shape} with weights for {weights.shape[1]}")
    bias = bias_of(site, kernel, 2, weights.shape[0], factor=site.real("beta", 1.0))
    lead = read.shape[:-1] or (1,)
    result = site.emit(
        "FULLY_CONNECTED",
        [
            read if len(read.shape) > 1 else site.builder.reshaped(read, (1, *read.shape)),
            kernel.weight_tensor(site, weights, 0),
            bias,
        ],
        (*lead, weights.shape[0]),
        grid=kernel.grid,
        options=(
            "FullyConnectedOptions",
            {
                "fusedActivationFunction": ACTIVATIONS[site.activation],
                "keepNumDims": len(read.shape) > 2,
            },
        ),
    )
    site.give(site.builder.reshaped(result, shape))


def _bias_fits(site: Site) -> bool:
    """Say whether the constant C is one number per column, or one for all."""
    if not site.has(2):
        return True
    held = site.held(2)
    if held.tensor.data is None:
        return False
    return held.tensor.size == 1 or (
        held.tensor.size == held.shape[-1] and held.shape[-1] == site.out_shape()[-1]
    )


def _product(
    site: Site, left: Held, right: Held, shape: tuple[int, ...] | list[int], grid: Grid | None
) -> Tensor:
    first, adj_x = _operand(site, left, whole=grid is not None)
    second, adj_y = _operand(site, right, whole=grid is not None)
    return site.emit(
        "BATCH_MATMUL",
        [first, second],
        shape,
        grid=grid,
        options=("BatchMatMulOptions", {"adjX": adj_x, "adjY": adj_y}),
    )


def _operand(site: Site, held: Held, *, whole: bool) -> tuple[Tensor, bool]:
    """Give an operand in order, or with its last two axes exchanged, which the kernel reads."""
    if not whole:
        held = Held(site.builder.in_float(held.tensor), held.order)
    rank = len(held.order)
    if not 2 <= rank <= _MOST_RANK:
        raise CannotLower(f"a product over {rank} dimensions (2 to {_MOST_RANK})")
    swapped = (*range(rank - 2), rank - 1, rank - 2)
    if held.order == swapped and held.tensor.data is None:
        return held.tensor, True
    return site.turn(held), False


def _as_matrix(site: Site, held: Held, position: int) -> Held:
    """Give a vector as a row, or as a column for the right side."""
    if len(held.order) != 1:
        return held
    count = held.shape[0]
    shape = (1, count) if position == 0 else (count, 1)
    return Held(site.builder.reshaped(held.tensor, shape), (0, 1))


def _swapped(held: Held) -> Held:
    if len(held.order) != 2:
        raise CannotLower(f"Gemm of {len(held.order)} dimensions (2)")
    return Held(held.tensor, tuple(1 - axis for axis in held.order))


def _scaled(site: Site, tensor: Tensor, factor: float) -> Tensor:
    number = site.builder.constant(np.array(factor, np.float32), "factor")
    options = ("MulOptions", {"fusedActivationFunction": 0})
    return site.emit("MUL", [tensor, number], tensor.shape, options=options)
