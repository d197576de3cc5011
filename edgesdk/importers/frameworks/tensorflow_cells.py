"""Which recurrent layer one step of a loop computes, found out by computing it.

TensorFlow has no operator for a recurrent layer: it writes a loop, and its optimizer writes the
loop's body in ever other ways, so that looking for one arrangement of operators finds few of
them. Here the arrangement does not matter: the weights are told by their shapes, and each layer
that they could belong to is computed beside the body on random numbers. Equal is equal.

The formulas are those of ONNX' LSTM, GRU and RNN operators; the order of the gates is Keras'
(input, forget, cell, output; update, reset, new).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float32]
    Step = Callable[[Floats, Sequence[Floats]], Sequence[Floats]]

__all__ = ["Cell", "recognise"]


@dataclass(frozen=True, slots=True)
class _Activation:
    name: str
    apply: Callable[[Floats], Floats]
    alpha: float | None = None
    beta: float | None = None


def _hard(alpha: float) -> _Activation:
    return _Activation(
        "HardSigmoid", lambda x: np.clip(alpha * x + 0.5, 0, 1).astype(np.float32), alpha, 0.5
    )


def _sigmoid(x: Floats) -> Floats:
    return np.asarray(0.5 * (1 + np.tanh(0.5 * x)), dtype=np.float32)


_SIGMOID = _Activation("Sigmoid", _sigmoid)
_GATES = (
    _SIGMOID,
    _hard(1 / 6),
    _hard(0.2),
)  # Keras 3 has the first of the hard ones, 2 the other
_SQUASHES = (
    _Activation("Tanh", lambda x: np.asarray(np.tanh(x), dtype=np.float32)),
    _Activation("Relu", lambda x: np.maximum(x, np.float32(0))),
    _SIGMOID,
    _Activation("Affine", lambda x: x, 1.0, 0.0),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """A recurrent layer of ONNX.

    Attributes:
        kind: ``LSTM``, ``GRU`` or ``RNN``.
        units: Length of its state.
        w, r, b: Its weights as the operator takes them: ``[1, gates * units, in]``,
            ``[1, gates * units, units]``, ``[1, 2 * gates * units]``.
        activations: Their names, with alpha and beta of those that have some.
        linear_before_reset: GRU's attribute.
        states: Which of the loop's states are the hidden one and, of an LSTM, the cell's.
    """

    kind: str
    units: int
    w: Floats
    r: Floats
    b: Floats
    activations: tuple[str, ...]
    alphas: tuple[float, ...] = field(default=())
    betas: tuple[float, ...] = field(default=())
    linear_before_reset: int = 0
    states: tuple[int, ...] = (0,)


def recognise(
    step: Step, constants: Sequence[Floats], *, states: int, batch: int | None
) -> Cell | None:
    """The layer that ``step`` computes with these constants, or None.

    ``step`` takes ``[batch, in]`` and the states ``[batch, units]`` and gives the next states;
    ``batch`` says the only batch it can take, where there is one.
    """
    for w, r, b in _weights(constants):
        units = r.shape[0]
        rng = np.random.default_rng(0)
        rows = batch or 2
        x = rng.standard_normal((rows, w.shape[0])).astype(np.float32)
        before = [rng.standard_normal((rows, units)).astype(np.float32) for _ in range(states)]
        try:
            after = [np.asarray(one) for one in step(x, before)]
        except Exception:  # noqa: BLE001, S112 - shapes that do not fit: not these weights
            continue
        if any(one.shape != (rows, units) for one in after):
            continue
        for cell, compute in _cells(w, r, b, states):
            told = compute(x, [before[at] for at in cell.states])
            wanted = [after[at] for at in cell.states]
            if all(
                np.allclose(one, other, rtol=1e-4, atol=1e-5)
                for one, other in zip(told, wanted, strict=True)
            ):
                return cell
    return None


def _weights(constants: Sequence[Floats]) -> Iterator[tuple[Floats, Floats, Floats | None]]:
    """Each reading of the constants as a layer's weights, those with a bias first."""
    tables = [one for one in constants if one.ndim == 2]
    for r, w in product(tables, tables):
        gates, rest = divmod(r.shape[1], max(r.shape[0], 1))
        if w is r or rest or gates not in (1, 3, 4) or w.shape[1] != r.shape[1]:
            continue
        biases = [
            one
            for one in constants
            if one is not w
            and one is not r
            and one.size in (r.shape[1], 2 * r.shape[1])
            and one.shape[-1:] == r.shape[1:]
        ]
        for bias in (*biases, None):
            yield w, r, bias


def _cells(
    w: Floats, r: Floats, b: Floats | None, states: int
) -> Iterator[tuple[Cell, Callable[[Floats, Sequence[Floats]], list[Floats]]]]:
    """Each layer that has such weights, with how it is computed."""
    units, columns = r.shape
    gates = columns // units
    pair = np.zeros((2, columns), np.float32)
    if b is not None:
        pair[: b.size // columns] = b.reshape(-1, columns)
    if (gates, states) == (4, 2):
        for gate, squash in product(_GATES, _SQUASHES):
            for order in ((0, 1), (1, 0)):
                yield (
                    _cell("LSTM", w, r, pair, (gate, squash, squash), states=order),
                    lambda x, s, gate=gate, squash=squash: _lstm(
                        x, s, w, r, pair, gate, squash
                    ),
                )
    elif (gates, states) == (3, 1):
        for gate, squash, after in product(_GATES, _SQUASHES, (1, 0)):
            yield (
                _cell("GRU", w, r, pair, (gate, squash), after=after),
                lambda x, s, gate=gate, squash=squash, after=after: _gru(
                    x, s, w, r, pair, gate, squash, after
                ),
            )
    elif (gates, states) == (1, 1):
        for squash in _SQUASHES:
            yield (
                _cell("RNN", w, r, pair, (squash,)),
                lambda x, s, squash=squash: [squash.apply(x @ w + s[0] @ r + pair.sum(0))],
            )


def _lstm(
    x: Floats,
    s: Sequence[Floats],
    w: Floats,
    r: Floats,
    b: Floats,
    gate: _Activation,
    squash: _Activation,
) -> list[Floats]:
    i, f, g, o = np.split(x @ w + s[0] @ r + b.sum(0), 4, axis=1)
    c = gate.apply(f) * s[1] + gate.apply(i) * squash.apply(g)
    return [gate.apply(o) * squash.apply(c), c]


def _gru(
    x: Floats,
    s: Sequence[Floats],
    w: Floats,
    r: Floats,
    b: Floats,
    gate: _Activation,
    squash: _Activation,
    after: int,
) -> list[Floats]:
    h = s[0]
    xz, xr, xn = np.split(x @ w + b[0], 3, axis=1)
    rz, rr, rn = np.split(r, 3, axis=1)
    bz, br, bn = np.split(b[1], 3)
    z = gate.apply(xz + h @ rz + bz)
    reset = gate.apply(xr + h @ rr + br)
    inner = reset * (h @ rn + bn) if after else (reset * h) @ rn + bn
    return [z * h + (1 - z) * squash.apply(xn + inner)]


def _cell(
    kind: str,
    w: Floats,
    r: Floats,
    b: Floats,
    activations: Sequence[_Activation],
    *,
    after: int = 0,
    states: tuple[int, ...] = (0,),
) -> Cell:
    units = r.shape[0]
    order = (0, 3, 1, 2) if kind == "LSTM" else range(r.shape[1] // units)

    def rows(table: Floats) -> Floats:
        """Columns of Keras' gates as rows of ONNX'."""
        parts = np.split(table, r.shape[1] // units, axis=1)
        joined = np.concatenate([parts[at] for at in order], axis=1)
        return np.ascontiguousarray(joined.T[None], dtype=np.float32)

    both = [rows(b[at : at + 1])[0, :, 0] for at in (0, 1)]
    return Cell(
        kind=kind,
        units=units,
        w=rows(w),
        r=rows(r),
        b=np.concatenate(both)[None],
        activations=tuple(one.name for one in activations),
        alphas=tuple(one.alpha for one in activations if one.alpha is not None),
        betas=tuple(one.beta for one in activations if one.beta is not None),
        linear_before_reset=after,
        states=states,
    )
