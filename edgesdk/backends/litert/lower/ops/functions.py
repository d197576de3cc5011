"""Functions of one number: TFLite's own where it has them, else formulas of others."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from edgesdk.backends.litert.lower.graph import Options, Tensor
from edgesdk.backends.litert.lower.maths import Maths
from edgesdk.backends.litert.lower.registry import lowers
from edgesdk.backends.litert.lower.site import Site
from edgesdk.model.values import NodeFacts

__all__: list[str] = []

Formula = Callable[[Maths, Tensor], Tensor]
_HALF_PI = math.pi / 2


def _why_not(node: NodeFacts) -> str | None:
    read = node.input_types[0] if node.input_types else None
    if read is not None and read.dtype not in ("float32", "float16", ""):
        return f"it computes in {read.dtype}"
    return None


def _why_not_signed(node: NodeFacts) -> str | None:
    read = node.input_types[0] if node.input_types else None
    if read is not None and read.dtype not in ("float32", "float16", "int32", ""):
        return f"it computes in {read.dtype}"
    return None


def _in_float(site: Site, formula: Formula) -> None:
    """Compute in float32, in whatever order of axes the input lies."""
    held = site.held(0)
    tensor = site.turn(type(held)(site.builder.in_float(held.tensor), held.order), held.order)
    site.give(formula(Maths(site), tensor), held.order)


def _register(op: str, code: str, *more: str, formula: Formula, why_not: object = None) -> None:
    def lower(site: Site) -> None:
        _in_float(site, formula)

    lower.__doc__ = f"Lower {op}."
    check = _why_not if why_not is None else why_not
    lowers(op, into=(code, *more), why_not=check)(lower)  # type: ignore[arg-type] # a WhyNot


def _plain(code: str) -> Formula:
    return lambda maths, x: maths.unary(code, x)


for _op, _code in {
    "Sqrt": "SQRT",
    "Floor": "FLOOR",
    "Ceil": "CEIL",
    "Round": "ROUND",
    "Sin": "SIN",
    "Cos": "COS",
}.items():
    _register(_op, _code, formula=_plain(_code))
for _op, _code in {"Abs": "ABS", "Neg": "NEG", "Sign": "SIGN"}.items():
    _register(_op, _code, formula=_plain(_code), why_not=_why_not_signed)


def _erf(maths: Maths, x: Tensor) -> Tensor:
    """Take it out of Gelu, which is ``z * (1 + erf(z / sqrt(2))) / 2``; it is odd."""
    z = maths.binary("MAXIMUM", maths.mul(maths.unary("ABS", x), math.sqrt(2.0)), 1e-6)
    gelu = maths.unary("GELU", z, ("GeluOptions", {"approximate": False}))
    positive = maths.sub(maths.mul(maths.div(gelu, z), 2.0), 1.0)
    return maths.mul(positive, maths.unary("SIGN", x))


def _softplus(maths: Maths, x: Tensor) -> Tensor:
    """Give ``max(x, 0) + log(1 + exp(-|x|))``, which overflows nowhere."""
    small = maths.unary("EXP", maths.unary("NEG", maths.unary("ABS", x)))
    return maths.add(maths.unary("RELU", x), maths.unary("LOG", maths.add(small, 1.0)))


def _mish(maths: Maths, x: Tensor) -> Tensor:
    return maths.mul(x, maths.unary("TANH", _softplus(maths, x)))


def _softsign(maths: Maths, x: Tensor) -> Tensor:
    return maths.div(x, maths.add(maths.unary("ABS", x), 1.0))


def _exp_of_both(maths: Maths, x: Tensor) -> tuple[Tensor, Tensor]:
    return maths.unary("EXP", x), maths.unary("EXP", maths.unary("NEG", x))


def _sinh(maths: Maths, x: Tensor) -> Tensor:
    up, down = _exp_of_both(maths, x)
    return maths.mul(maths.sub(up, down), 0.5)


def _cosh(maths: Maths, x: Tensor) -> Tensor:
    up, down = _exp_of_both(maths, x)
    return maths.mul(maths.add(up, down), 0.5)


def _tan(maths: Maths, x: Tensor) -> Tensor:
    return maths.div(maths.unary("SIN", x), maths.unary("COS", x))


def _asinh(maths: Maths, x: Tensor) -> Tensor:
    size = maths.unary("ABS", x)
    root = maths.unary("SQRT", maths.add(maths.mul(size, size), 1.0))
    return maths.mul(maths.unary("LOG", maths.add(size, root)), maths.unary("SIGN", x))


def _acosh(maths: Maths, x: Tensor) -> Tensor:
    root = maths.unary("SQRT", maths.sub(maths.mul(x, x), 1.0))
    return maths.unary("LOG", maths.add(x, root))


def _atanh(maths: Maths, x: Tensor) -> Tensor:
    ratio = maths.div(maths.add(x, 1.0), maths.sub(1.0, x))
    return maths.mul(maths.unary("LOG", ratio), 0.5)


def _reciprocal(maths: Maths, x: Tensor) -> Tensor:
    return maths.div(1.0, x)


_register("Erf", "GELU", "ABS", "DIV", "MUL", "SIGN", "SUB", formula=_erf)
_register("Softplus", "LOG", "EXP", "ABS", "NEG", "RELU", "ADD", formula=_softplus)
_register("Mish", "TANH", "LOG", "EXP", "ABS", "NEG", "RELU", "ADD", "MUL", formula=_mish)
_register("Softsign", "DIV", "ABS", "ADD", formula=_softsign)
_register("Sinh", "EXP", "NEG", "SUB", "MUL", formula=_sinh)
_register("Cosh", "EXP", "NEG", "ADD", "MUL", formula=_cosh)
_register("Tan", "DIV", "SIN", "COS", formula=_tan)
_register("Asinh", "LOG", "SQRT", "ABS", "SIGN", "ADD", "MUL", formula=_asinh)
_register("Acosh", "LOG", "SQRT", "SUB", "ADD", "MUL", formula=_acosh)
_register("Atanh", "LOG", "DIV", "ADD", "SUB", "MUL", formula=_atanh)
_register("Reciprocal", "DIV", formula=_reciprocal)


def _maybe_whole(
    site: Site,
    code: str,
    options: Options | None = None,
    kinds: tuple[str, ...] = ("int8",),
) -> None:
    """Lower to a kernel that computes on grids of ``kinds`` too, where both ends have one."""
    grid = site.kernel_grid(0)
    if grid is not None and grid.dtype not in kinds:
        grid = None
    held = site.held(0)
    tensor = site.take_on(0, None if grid is None else site.grid(0), held.order)
    made = site.emit(code, [tensor], tensor.shape, grid=grid, options=options)
    site.give(made, held.order)


@lowers("LeakyRelu", into="LEAKY_RELU", why_not=_why_not)
def lower_leaky_relu(site: Site) -> None:
    """Lower one; it has kernels for int8 and int16."""
    slope = site.real("alpha", 0.01)
    options: Options = ("LeakyReluOptions", {"alpha": slope})
    _maybe_whole(site, "LEAKY_RELU", options, ("int8", "int16"))


@lowers("HardSigmoid", into=("ADD", "MUL"), why_not=_why_not)
def lower_hard_sigmoid(site: Site) -> None:
    """Lower ``alpha * x + beta``, cut to 0..1."""
    factor, offset = site.real("alpha", 0.2), site.real("beta", 0.5)
    _in_float(site, lambda maths, x: maths.between_0_and_1(x, factor, offset))


@lowers("HardSwish", into="HARD_SWISH", why_not=_why_not)
def lower_hard_swish(site: Site) -> None:
    """Lower one; it has a kernel for int8."""
    _maybe_whole(site, "HARD_SWISH", ("HardSwishOptions", {}))


@lowers("Gelu", into="GELU", why_not=_why_not)
def lower_gelu(site: Site) -> None:
    """Lower either form."""
    fields: dict[str, object] = {"approximate": site.text("approximate", "none") == "tanh"}
    _maybe_whole(site, "GELU", ("GeluOptions", fields))


@lowers("Swish", into=("MUL", "LOGISTIC"), why_not=_why_not)
def lower_swish(site: Site) -> None:
    """Lower ``x * sigmoid(alpha * x)``."""
    factor = site.real("alpha", 1.0)

    def formula(maths: Maths, x: Tensor) -> Tensor:
        scaled = x if factor == 1.0 else maths.mul(x, factor)
        return maths.mul(x, maths.unary("LOGISTIC", scaled))

    _in_float(site, formula)


@lowers("Exp", into="EXP", why_not=_why_not)
def lower_exp(site: Site) -> None:
    """Lower the exponential function; it has a kernel for int8."""
    _maybe_whole(site, "EXP", ("ExpOptions", {}))


@lowers("Log", into="LOG", why_not=_why_not)
def lower_log(site: Site) -> None:
    """Lower the natural logarithm; it has a kernel for int8."""
    _maybe_whole(site, "LOG")


def _lower_elu(site: Site, outer: float, factor: float, inner: float) -> None:
    """Lower ``outer * (max(x, 0) + min(factor * (exp(x / inner) - 1), 0))``."""

    def formula(maths: Maths, x: Tensor) -> Tensor:
        # the exponential of what is below zero only, or it overflows
        below = maths.binary("MINIMUM", x, 0.0)
        scaled = below if inner == 1.0 else maths.mul(below, 1 / inner)
        curve = maths.mul(maths.sub(maths.unary("EXP", scaled), 1.0), outer * factor)
        line = maths.unary("RELU", x)
        return maths.add(line if outer == 1.0 else maths.mul(line, outer), curve)

    _in_float(site, formula)


@lowers("Elu", into=("ELU", "EXP", "ADD", "MUL", "RELU", "MINIMUM"), why_not=_why_not)
def lower_elu(site: Site) -> None:
    """Lower an exponential linear unit; the usual one has a kernel for int8."""
    if site.real("alpha", 1.0) == 1.0:
        _maybe_whole(site, "ELU")
        return
    _lower_elu(site, 1.0, site.real("alpha", 1.0), 1.0)


@lowers("Selu", into=("EXP", "ADD", "MUL", "RELU", "MINIMUM"), why_not=_why_not)
def lower_selu(site: Site) -> None:
    """Lower a scaled one; ONNX's numbers where none are given."""
    gain = site.real("gamma", 1.05070102214813232421875)
    _lower_elu(site, gain, site.real("alpha", 1.67326319217681884765625), 1.0)


def _why_not_celu(node: NodeFacts) -> str | None:
    alpha = node.floats.get("alpha", (1.0,))[0]
    return "its alpha is 0" if alpha == 0 else _why_not(node)


@lowers("Celu", into=("EXP", "ADD", "MUL", "RELU", "MINIMUM"), why_not=_why_not_celu)
def lower_celu(site: Site) -> None:
    """Lower one whose curve begins as steep as its line."""
    alpha = site.real("alpha", 1.0)
    _lower_elu(site, 1.0, alpha, alpha)


@lowers("ThresholdedRelu", into=("SELECT_V2", "GREATER"), why_not=_why_not)
def lower_thresholded_relu(site: Site) -> None:
    """Lower ``x`` where it is above alpha, else 0."""
    alpha = site.real("alpha", 1.0)
    _in_float(site, lambda m, x: m.where(m.binary("GREATER", x, alpha), x, m.number(0.0)))


@lowers("Shrink", into=("SELECT_V2", "LESS", "GREATER", "ADD", "SUB"), why_not=_why_not)
def lower_shrink(site: Site) -> None:
    """Lower what moves numbers towards 0 and drops small ones."""
    bound, bias = site.real("lambd", 0.5), site.real("bias", 0.0)

    def formula(maths: Maths, x: Tensor) -> Tensor:
        high = maths.binary("GREATER", x, bound)
        low = maths.binary("LESS", x, -bound)
        above = maths.where(high, maths.sub(x, bias), maths.number(0.0))
        return maths.where(low, maths.add(x, bias), above)

    _in_float(site, formula)


@lowers("IsNaN", into="NOT_EQUAL", why_not=_why_not)
def lower_is_nan(site: Site) -> None:
    """Lower to the question whether a number differs from itself."""
    _in_float(site, lambda maths, x: maths.binary("NOT_EQUAL", x, x))


@lowers("IsInf", into=("EQUAL", "ABS"), why_not=_why_not)
def lower_is_inf(site: Site) -> None:
    """Lower to a comparison with infinity."""
    up, down = site.number("detect_positive", 1), site.number("detect_negative", 1)

    def formula(maths: Maths, x: Tensor) -> Tensor:
        if up and down:
            return maths.binary("EQUAL", maths.unary("ABS", x), math.inf)
        if up or down:
            return maths.binary("EQUAL", x, math.inf if up else -math.inf)
        return maths.array(np.zeros(x.shape, np.bool_))

    _in_float(site, formula)
