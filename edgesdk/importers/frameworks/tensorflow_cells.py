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
from functools import partial
from itertools import product
from typing import TYPE_CHECKING, NamedTuple

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
    for held in _weights(constants):
        units = held.r.shape[0]
        rng = np.random.default_rng(0)
        rows = batch or 2
        x = rng.standard_normal((rows, held.w.shape[0])).astype(np.float32)
        before = [rng.standard_normal((rows, units)).astype(np.float32) for _ in range(states)]
        try:
            after = [np.asarray(one) for one in step(x, before)]
        except Exception:  # noqa: BLE001, S112 - shapes that do not fit: not these weights
            continue
        if any(one.shape != (rows, units) for one in after):
            continue
        for cell, compute in _cells(held, states):
            told = compute(x, [before[at] for at in cell.states])
            wanted = [after[at] for at in cell.states]
            if all(
                np.allclose(one, other, rtol=1e-4, atol=1e-5)
                for one, other in zip(told, wanted, strict=True)
            ):
                return cell
    return None


class _Weights(NamedTuple):
    """Weights as Keras keeps them: ``[in, gates * units]``, ``[units, gates * units]``.

    The first row of the bias belongs to the input, the second to the state.
    """

    w: Floats
    r: Floats
    b: Floats


def _weights(constants: Sequence[Floats]) -> Iterator[_Weights]:
    """Each reading of the constants as a layer's weights, those with a bias first."""
    tables = [one for one in constants if one.ndim == 2]
    for r, w in product(tables, tables):
        gates, rest = divmod(r.shape[1], max(r.shape[0], 1))
        if w is r or rest or gates not in (1, 3, 4) or w.shape[1] != r.shape[1]:
            continue
        columns = r.shape[1]
        for bias in (*constants, None):
            pair = np.zeros((2, columns), np.float32)
            if bias is not None:
                told = bias.size in (columns, 2 * columns) and bias.shape[-1] == columns
                if not told or bias is w or bias is r:
                    continue
                pair[: bias.size // columns] = bias.reshape(-1, columns)
            yield _Weights(w, r, pair)


def _cells(
    held: _Weights, states: int
) -> Iterator[tuple[Cell, Callable[[Floats, Sequence[Floats]], list[Floats]]]]:
    """Each layer that has such weights, with how it is computed."""
    gates = held.r.shape[1] // held.r.shape[0]
    if (gates, states) == (4, 2):
        for gate, squash in product(_GATES, _SQUASHES):
            for order in ((0, 1), (1, 0)):
                yield (
                    _cell("LSTM", held, (gate, squash, squash), states=order),
                    partial(_lstm, held, gate, squash),
                )
    elif (gates, states) == (3, 1):
        for gate, squash, after in product(_GATES, _SQUASHES, (1, 0)):
            yield (
                _cell("GRU", held, (gate, squash), after=after),
                partial(_gru_after if after else _gru_before, held, gate, squash),
            )
    elif (gates, states) == (1, 1):
        for squash in _SQUASHES:
            yield _cell("RNN", held, (squash,)), partial(_rnn, held, squash)


def _rnn(held: _Weights, squash: _Activation, x: Floats, s: Sequence[Floats]) -> list[Floats]:
    return [squash.apply(x @ held.w + s[0] @ held.r + held.b.sum(0))]


def _lstm(
    held: _Weights, gate: _Activation, squash: _Activation, x: Floats, s: Sequence[Floats]
) -> list[Floats]:
    i, f, g, o = np.split(x @ held.w + s[0] @ held.r + held.b.sum(0), 4, axis=1)
    c = gate.apply(f) * s[1] + gate.apply(i) * squash.apply(g)
    return [gate.apply(o) * squash.apply(c), c]


def _gru_after(
    held: _Weights, gate: _Activation, squash: _Activation, x: Floats, s: Sequence[Floats]
) -> list[Floats]:
    """The reset gate is applied to what the state's weights gave."""
    xz, xr, xn = np.split(x @ held.w + held.b[0], 3, axis=1)
    hz, hr, hn = np.split(s[0] @ held.r + held.b[1], 3, axis=1)
    z = gate.apply(xz + hz)
    return [z * s[0] + (1 - z) * squash.apply(xn + gate.apply(xr + hr) * hn)]


def _gru_before(
    held: _Weights, gate: _Activation, squash: _Activation, x: Floats, s: Sequence[Floats]
) -> list[Floats]:
    """The reset gate is applied to the state itself."""
    xz, xr, xn = np.split(x @ held.w + held.b.sum(0), 3, axis=1)
    rz, rr, rn = np.split(held.r, 3, axis=1)
    z = gate.apply(xz + s[0] @ rz)
    left = np.asarray(gate.apply(xr + s[0] @ rr) * s[0], dtype=np.float32)
    return [z * s[0] + (1 - z) * squash.apply(xn + left @ rn)]


def _cell(
    kind: str,
    held: _Weights,
    activations: Sequence[_Activation],
    *,
    after: int = 0,
    states: tuple[int, ...] = (0,),
) -> Cell:
    units, columns = held.r.shape
    gates = columns // units
    order = (0, 3, 1, 2) if kind == "LSTM" else range(gates)  # ONNX has the output gate second

    def rows(table: Floats) -> Floats:
        """Columns of Keras' gates as rows of ONNX'."""
        parts = np.split(table, gates, axis=1)
        joined = np.concatenate([parts[at] for at in order], axis=1)
        return np.ascontiguousarray(joined.T[None], dtype=np.float32)

    both = [rows(held.b[at : at + 1])[0, :, 0] for at in (0, 1)]
    return Cell(
        kind=kind,
        units=units,
        w=rows(held.w),
        r=rows(held.r),
        b=np.concatenate(both)[None],
        activations=tuple(one.name for one in activations),
        alphas=tuple(one.alpha for one in activations if one.alpha is not None),
        betas=tuple(one.beta for one in activations if one.beta is not None),
        linear_before_reset=after,
        states=states,
    )
