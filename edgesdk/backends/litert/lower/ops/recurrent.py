"""LSTM, GRU and RNN, unrolled over the steps of their sequence, in float32.

TFLite's own sequence operators keep their state from one run of a file to the next, which ONNX
does not want. What all steps share, the product with the input, is one FULLY_CONNECTED.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from edgesdk.backends.litert.lower.errors import CannotLower
from edgesdk.backends.litert.lower.graph import Tensor
from edgesdk.backends.litert.lower.maths import Maths
from edgesdk.backends.litert.lower.registry import lowers
from edgesdk.backends.litert.lower.site import Site
from edgesdk.model.values import NodeFacts

__all__: list[str] = []

_GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}
_FUNCTIONS = {"Sigmoid": "LOGISTIC", "Tanh": "TANH", "Relu": "RELU"}
_USUAL = {"LSTM": ("Sigmoid", "Tanh", "Tanh"), "GRU": ("Sigmoid", "Tanh"), "RNN": ("Tanh",)}
_INTO = ("FULLY_CONNECTED", "LOGISTIC", "TANH", "MUL", "ADD", "SUB", "SLICE", "PACK", "UNPACK")
#: Steps that are unrolled, over both directions.
_MOST_STEPS = 512
Step = Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]


def _why_not(node: NodeFacts) -> str | None:
    def is_unknown(position: int) -> bool:
        given = position < len(node.inputs) and node.inputs[position]
        return bool(given) and not node.constant_inputs[position]

    read = node.input_types[0] if node.input_types else None
    steps: object = 0
    if read is not None and len(read.shape) == 3:
        steps = read.shape[1 if node.ints.get("layout", (0,))[0] else 0]
    odd = node.floats.get("activation_alpha") or node.floats.get("activation_beta")
    reasons = {
        "its weights are not constant": any(is_unknown(position) for position in (1, 2, 3, 7)),
        "its sequences have lengths of their own": is_unknown(4),
        "it clips its gates": "clip" in node.floats,
        "it couples input and forget gates": bool(node.ints.get("input_forget", (0,))[0]),
        "its activations have parameters": bool(odd),
        f"a sequence of {steps} steps (at most {_MOST_STEPS})": isinstance(steps, int)
        and steps > _MOST_STEPS,
        "it does not compute in float32": read is not None
        and read.dtype not in ("float32", "float16", ""),
    }
    return next((reason for reason, holds in reasons.items() if holds), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Layer:
    """One direction of a layer, its numbers in ONNX's order of gates.

    ``weights`` and ``recurrence`` are (gates * hidden, inputs or hidden), the biases
    (gates * hidden), ``peepholes`` (3 * hidden) or None; ``functions`` are TFLite's names.
    """

    hidden: int
    weights: np.ndarray
    recurrence: np.ndarray
    bias: np.ndarray
    recurrent_bias: np.ndarray
    peepholes: np.ndarray | None
    functions: tuple[str, ...]


def _layers(site: Site) -> list[_Layer]:
    op = site.node.op_type
    gates = _GATES[op]
    found = [site.constant(position) for position in (1, 2)]
    weights, recurrence = (each for each in found if each is not None)
    directions, hidden = weights.shape[0], recurrence.shape[2]
    biases = site.constant(3) if site.has(3) else None
    if biases is None:
        biases = np.zeros((directions, 2 * gates * hidden), np.float32)
    peepholes = site.constant(7) if site.has(7) else None
    attribute = site.node.attributes.get("activations")
    names = tuple(attribute.as_strings()) if attribute is not None else _USUAL[op] * directions
    each = len(_USUAL[op])
    if len(names) != each * directions or any(name not in _FUNCTIONS for name in names):
        raise CannotLower(f"its activations are {', '.join(names)}")
    functions = [_FUNCTIONS[name] for name in names]
    half = gates * hidden
    return [
        _Layer(
            hidden=hidden,
            weights=weights[i],
            recurrence=recurrence[i],
            bias=biases[i, :half],
            recurrent_bias=biases[i, half:],
            peepholes=None if peepholes is None else peepholes[i],
            functions=tuple(functions[i * each : (i + 1) * each]),
        )
        for i in range(directions)
    ]


@lowers("LSTM", "GRU", "RNN", into=_INTO, why_not=_why_not)
def lower_recurrent(site: Site) -> None:
    """Lower a layer in one direction or both."""
    batch_first = bool(site.number("layout"))
    x = site.take_float(0, (1, 0, 2) if batch_first else (0, 1, 2))
    steps, batch = x.shape[:2]
    layers = _layers(site)
    lengths = site.constant(4) if site.has(4) else None
    if lengths is not None and np.any(lengths != steps):
        raise CannotLower("its sequences have lengths of their own")
    if steps * len(layers) > _MOST_STEPS:
        raise CannotLower(f"a sequence of {steps} steps (at most {_MOST_STEPS} in all)")
    backwards = site.text("direction", "forward") == "reverse"
    maths = Maths(site)
    rows, lasts, cells = [], [], []
    for number, layer in enumerate(layers):
        turned = backwards or number == 1
        h, c = (_start(site, position, number, (batch, layer.hidden)) for position in (5, 6))
        outputs, h, c = _unrolled(site, layer, x, h, c, turned=turned)
        rows.append(maths.packed(outputs))
        lasts.append(h)
        cells.append(c)
    _give_all(site, rows, lasts, cells, batch_first=batch_first)


def _start(site: Site, position: int, number: int, shape: tuple[int, int]) -> Tensor:
    """Give the state that a direction begins with."""
    maths = Maths(site)
    if not site.has(position):
        return maths.array(np.zeros(shape, np.float32))
    if site.number("layout"):
        whole = site.take_float(position, (1, 0, 2))
    else:
        whole = site.take_float(position)
    return site.builder.reshaped(maths.part(whole, 0, number, 1), shape)


def _unrolled(
    site: Site, layer: _Layer, x: Tensor, h: Tensor, c: Tensor, *, turned: bool
) -> tuple[list[Tensor], Tensor, Tensor]:
    """Give a direction's outputs in the order of the sequence, and its last states."""
    maths, builder = Maths(site), site.builder
    step, bias = {"LSTM": _lstm, "GRU": _gru, "RNN": _rnn}[site.node.op_type](site, layer)
    steps, batch, width = x.shape
    flat = builder.reshaped(x, (steps * batch, width))
    weights = maths.array(layer.weights.astype(np.float32))
    given = maths.dense(flat, weights, maths.array(bias.astype(np.float32)))
    pieces = maths.unpacked(builder.reshaped(given, (steps, batch, bias.size)))
    outputs = []
    for piece in reversed(pieces) if turned else pieces:
        h, c = step(piece, h, c)
        outputs.append(h)
    return outputs[::-1] if turned else outputs, h, c


def _gates(maths: Maths, x: Tensor, hidden: int, *numbers: int) -> list[Tensor]:
    return [maths.part(x, 1, number * hidden, hidden) for number in numbers]


def _lstm(site: Site, layer: _Layer) -> tuple[Step, np.ndarray]:
    """Give a step: gates lie in the order input, output, forget, cell."""
    maths, hidden = Maths(site), layer.hidden
    recurrence = maths.array(layer.recurrence.astype(np.float32))
    gate, inner, outer = layer.functions
    looks: list[Tensor] = []
    if layer.peepholes is not None:
        looks = [maths.array(each) for each in layer.peepholes.reshape(3, 1, hidden)]

    def step(given: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        total = maths.add(given, maths.dense(h, recurrence))
        new = maths.unary(inner, maths.part(total, 1, 3 * hidden, hidden))
        if looks:
            i, o, f = _gates(maths, total, hidden, 0, 1, 2)
            i = maths.unary(gate, maths.add(i, maths.mul(looks[0], c)))
            f = maths.unary(gate, maths.add(f, maths.mul(looks[2], c)))
        else:
            opened = maths.unary(gate, maths.part(total, 1, 0, 3 * hidden))
            i, o, f = _gates(maths, opened, hidden, 0, 1, 2)
        kept = maths.add(maths.mul(f, c), maths.mul(i, new))
        if looks:
            o = maths.unary(gate, maths.add(o, maths.mul(looks[1], kept)))
        return maths.mul(o, maths.unary(outer, kept)), kept

    return step, layer.bias + layer.recurrent_bias


def _gru(site: Site, layer: _Layer) -> tuple[Step, np.ndarray]:
    """Give a step: gates lie in the order update, reset, hidden."""
    maths, hidden = Maths(site), layer.hidden
    gate, inner = layer.functions
    whole = bool(site.number("linear_before_reset"))
    count = 3 if whole else 2
    first = maths.array(layer.recurrence[: count * hidden].astype(np.float32))
    last = maths.array(layer.recurrence[2 * hidden :].astype(np.float32))
    bias, own = layer.bias + layer.recurrent_bias, None
    if whole:
        # the hidden gate's own bias is reset too
        own = np.concatenate([np.zeros(2 * hidden), layer.recurrent_bias[2 * hidden :]])
        bias = bias - own
    extra = None if own is None else maths.array(own.astype(np.float32))

    def step(given: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        back = maths.dense(h, first, extra)
        sums = maths.add(
            maths.part(given, 1, 0, 2 * hidden), maths.part(back, 1, 0, 2 * hidden)
        )
        z, r = _gates(maths, maths.unary(gate, sums), hidden, 0, 1)
        fresh = maths.part(given, 1, 2 * hidden, hidden)
        if whole:
            past = maths.mul(r, maths.part(back, 1, 2 * hidden, hidden))
        else:
            past = maths.dense(maths.mul(r, h), last)
        new = maths.unary(inner, maths.add(fresh, past))
        return maths.add(new, maths.mul(z, maths.sub(h, new))), c

    return step, bias


def _rnn(site: Site, layer: _Layer) -> tuple[Step, np.ndarray]:
    """Give a step of the simple layer."""
    maths = Maths(site)
    recurrence = maths.array(layer.recurrence.astype(np.float32))
    (function,) = layer.functions

    def step(given: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        return maths.unary(function, maths.add(given, maths.dense(h, recurrence))), c

    return step, layer.bias + layer.recurrent_bias


def _give_all(
    site: Site,
    rows: list[Tensor],
    lasts: list[Tensor],
    cells: list[Tensor],
    *,
    batch_first: bool,
) -> None:
    """Give all outputs that somebody wants: steps, directions, batch, hidden."""
    maths, builder = Maths(site), site.builder
    outputs = site.node.outputs
    wanted = [bool(value.name) for value in outputs] + [False] * 3
    if wanted[0]:
        steps, batch, hidden = rows[0].shape
        wide = [builder.reshaped(each, (steps, 1, batch, hidden)) for each in rows]
        # axes of the tensor: steps, directions, batch, hidden
        order = (1, 2, 0, 3) if batch_first else (0, 1, 2, 3)
        site.give(maths.joined(wide, 1), order)
    for position, states in ((1, lasts), (2, cells)):
        if position < len(outputs) and wanted[position]:
            order3 = (1, 0, 2) if batch_first else (0, 1, 2)
            site.give(maths.packed(states), order3, position=position)
