"""Recurrent layers: a whole sequence in one operator, from a state of zeros."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from edgesdk.importers.tflite.builder import Attribute
from edgesdk.importers.tflite.held import CannotConvert, Grid, Held
from edgesdk.importers.tflite.ops.windows import note_hybrid
from edgesdk.importers.tflite.registry import converts
from edgesdk.importers.tflite.site import Site

if TYPE_CHECKING:
    import onnx_ir as ir

__all__: list[str] = []

#: ONNX's order of gates (input, output, forget, cell) by position in TFLite's.
_GATES = (0, 3, 1, 2)
_INPUT, _RECURRENT, _PEEPHOLES, _BIASES = 1, 5, 9, 12
_PROJECTION, _STATE, _CELL, _NORMS = 16, 18, 19, 20
_FUNCTIONS = {"TANH": "Tanh", "RELU": "Relu"}


@converts("UNIDIRECTIONAL_SEQUENCE_LSTM")
def _lstm(site: Site) -> None:
    """Make an LSTM; its weights stay in their integers, its sums are in float."""
    if site.has(_PROJECTION) or any(site.has(_NORMS + each) for each in range(4)):
        raise CannotConvert("it has a projection or a normalization inside, which ONNX's lacks")
    if not all(site.has(_INPUT + each) and site.has(_RECURRENT + each) for each in range(4)):
        raise CannotConvert("it couples its input and forget gates")
    if site.text("activation", "TANH") != "TANH":
        raise CannotConvert(f"its activation is {site.text('activation')}")
    held = site.held(0)
    if held.rank != 3:
        raise CannotConvert(f"its input has {held.rank} dimensions (expected 3)")
    clip = site.real("cell_clip")
    if clip > 0:
        site.walk.note(
            f"the cells of operator {site.op.index} ({site.op.name}) are not cut to "
            f"{clip:g}, which ONNX's LSTM cannot: it counts only where they get that large"
        )
    _note_state(site)
    note_hybrid(site)
    hidden = site.shape(_RECURRENT)[0]
    inputs: list[ir.Value | None] = [
        _sequence(site),
        _stacked(site, [_INPUT + gate for gate in _GATES]),
        _stacked(site, [_RECURRENT + gate for gate in _GATES]),
        _biases(
            site,
            [_BIASES + gate for gate in _GATES],
            [_INPUT + gate for gate in _GATES],
            hidden,
        ),
    ]
    if any(site.has(_PEEPHOLES + each) for each in range(3)):
        # TFLite's are of the gates input, forget, output; ONNX's input, output, forget
        inputs += [None, None, None, _peepholes(site, hidden)]
    _give_sequence(site, site.builder.emit("LSTM", inputs, {"hidden_size": hidden})[0])


@converts("UNIDIRECTIONAL_SEQUENCE_RNN")
def _rnn(site: Site) -> None:
    function = site.text("activation", "TANH")
    if function not in _FUNCTIONS:
        raise CannotConvert(f"its activation is {function}")
    if len(site.shape(0)) != 3:
        raise CannotConvert(f"its input has {len(site.shape(0))} dimensions (expected 3)")
    _note_state(site)
    note_hybrid(site)
    hidden = site.shape(2)[0]
    inputs = [
        _sequence(site),
        _stacked(site, [1]),
        _stacked(site, [2]),
        _biases(site, [3], [1], hidden),
    ]
    fields: dict[str, Attribute] = {
        "hidden_size": hidden,
        "activations": [_FUNCTIONS[function]],
    }
    _give_sequence(site, site.builder.emit("RNN", inputs, fields)[0])


def _note_state(site: Site) -> None:
    site.walk.stateful.append(site.op.index)
    site.walk.note(
        f"operator {site.op.index} ({site.op.name}) begins every run with a state of zeros; "
        "LiteRT goes on with the one of the run before unless it is reset"
    )


def _sequence(site: Site) -> ir.Value:
    """Give the input as ONNX wants it: steps, batch, numbers."""
    return site.take(0, (0, 1, 2) if site.number("time_major") else (1, 0, 2))


def _give_sequence(site: Site, value: ir.Value) -> None:
    """Take what a layer gives, (steps, directions, batch, hidden)."""
    steps = site.emit("Squeeze", [value, site.builder.numbers(1)])
    site.give(steps, (0, 1, 2) if site.number("time_major") else (1, 0, 2))


def _stacked(site: Site, positions: list[int]) -> ir.Value:
    """Put the weights of all gates below each other, each on its own grid."""
    held = [site.held(position) for position in positions]
    if any(each.data is None or each.rank != 2 for each in held):
        raise CannotConvert("its weights are not known before it runs")
    pieces = [each.data for each in held if each.data is not None]
    data = np.concatenate(pieces)[None]
    grids = [each.grid for each in held]
    found = [grid for grid in grids if grid is not None]
    if len(found) != len(grids) or any(grid.axis not in (None, 0) for grid in found):
        data = np.concatenate([_real(site, each) for each in positions])[None]
        return site.builder.constant(data)
    scales: list[float] = []
    zeros: list[int] = []
    for grid, piece in zip(found, pieces, strict=True):
        times = len(piece) if grid.axis is None else 1
        scales += grid.scales * times
        zeros += grid.zero_points * times
    grid = Grid(found[0].dtype, tuple(scales), tuple(zeros), 1)
    return site.builder.real(Held(data.shape, (0, 1, 2), grid, data=data))


def _biases(site: Site, positions: list[int], weights: list[int], hidden: int) -> ir.Value:
    """Give the biases of all gates in float, and as many zeros for the recurrent ones."""
    pieces = [
        _bias(site, position, beside) if site.has(position) else np.zeros(hidden, np.float32)
        for position, beside in zip(positions, weights, strict=True)
    ]
    zeros = np.zeros(hidden * len(positions), np.float32)
    return site.builder.constant(np.concatenate([*pieces, zeros])[None])


def _bias(site: Site, position: int, weights: int) -> np.ndarray:
    """Give a bias, whose integers count steps of input scale times weight scale."""
    held, read, beside = site.held(position), site.held(0).grid, site.held(weights).grid
    if held.data is None or held.data.dtype.kind != "i" or read is None or beside is None:
        return _real(site, position)
    scales = np.array(beside.scales, np.float64) * read.scales[0]
    real: np.ndarray = (held.data * scales).astype(np.float32)
    return real


def _peepholes(site: Site, hidden: int) -> ir.Value:
    pieces = [
        _real(site, _PEEPHOLES + each)
        if site.has(_PEEPHOLES + each)
        else np.zeros(hidden, np.float32)
        for each in (0, 2, 1)
    ]
    return site.builder.constant(np.concatenate(pieces)[None])


def _real(site: Site, position: int) -> np.ndarray:
    found = site.constant(position)
    if found is None:
        raise CannotConvert("its weights are not known before it runs")
    real: np.ndarray = found.astype(np.float32)
    return real
