"""Recurrent layers of TFLite: from a state of zeros on, whole sequences at once."""

from __future__ import annotations

from pathlib import Path

import flatbuffers
import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema

from edgesdk.errors import ModelError
from edgesdk.importers.tflite.walk import convert_tflite
from edgesdk.model.tflite import open_tflite
from tests.unit.importers.tflite_files import Made, Net, converted

STEPS, READS, HIDDEN, BATCH = 5, 3, 4, 2
_RANDOM = np.random.default_rng(3)


def normal(*shape: int) -> np.ndarray:
    return (0.5 * _RANDOM.normal(size=shape)).astype("f4")


def with_state(path: Path, *names: str) -> Path:
    """Mark tensors as ones that keep their content, which the writer of the lowering cannot."""
    model = schema.ModelT.InitFromPackedBuf(path.read_bytes(), 0)
    for tensor in model.subgraphs[0].tensors:
        tensor.isVariable = tensor.name.decode() in names
    builder = flatbuffers.Builder(4096)
    builder.Finish(model.Pack(builder), b"TFL3")
    path.write_bytes(bytes(builder.Output()))
    return path


def lstm(
    folder: Path,
    *,
    time_major: bool = False,
    peepholes: bool = False,
    clip: float = 0.0,
    projects: bool = False,
) -> Path:
    net = Net()
    lead = (STEPS, BATCH) if time_major else (BATCH, STEPS)
    given = net.given((*lead, READS))
    weights = [net.fixed(normal(HIDDEN, READS)) for _ in range(4)]
    recurrent = [net.fixed(normal(HIDDEN, HIDDEN)) for _ in range(4)]
    holes = [net.fixed(normal(HIDDEN)) if peepholes else None for _ in range(3)]
    biases = [net.fixed(normal(HIDDEN)) for _ in range(4)]
    projection = net.fixed(normal(HIDDEN, HIDDEN)) if projects else None
    state = [net.given((BATCH, HIDDEN)) for _ in range(2)]
    for each, name in zip(state, ("state", "cell"), strict=True):
        each.name = name
    del net.graph.inputs[1:]
    fields = {"fusedActivationFunction": 4, "timeMajor": time_major, "cellClip": clip}
    out = net.op(
        "UNIDIRECTIONAL_SEQUENCE_LSTM",
        [given, *weights, *recurrent, *holes, *biases, projection, None, *state, *[None] * 4],
        (*lead, HIDDEN),
        options=("UnidirectionalSequenceLSTMOptions", fields),
    )
    return with_state(net.save(folder, out), "state", "cell")


def made(path: Path) -> Made:
    return converted(open_tflite(path))


@pytest.mark.parametrize("time_major", [False, True])
@pytest.mark.parametrize("peepholes", [False, True])
def test_an_lstm_is_one_operator_with_the_numbers_of_litert(
    time_major: bool, peepholes: bool, tmp_path: Path
) -> None:
    got = made(lstm(tmp_path, time_major=time_major, peepholes=peepholes))
    assert got.proof.holds, got.proof
    assert got.ops.count("LSTM") == 1
    assert got.converted.stateful == (0,)
    assert "state of zeros" in " ".join(got.converted.notes)


def test_a_cell_that_is_cut_off_is_told(tmp_path: Path) -> None:
    got = made(lstm(tmp_path, clip=10.0))
    assert got.proof.holds, got.proof
    assert "not cut to 10" in " ".join(got.converted.notes)


def test_an_lstm_with_a_projection_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"operator 0.*projection"):
        convert_tflite(open_tflite(lstm(tmp_path, projects=True)))


@pytest.mark.parametrize("function", [1, 4])
def test_a_plain_recurrent_layer(function: int, tmp_path: Path) -> None:
    net = Net()
    given = net.given((BATCH, STEPS, READS))
    state = net.given((BATCH, HIDDEN))
    state.name = "state"
    del net.graph.inputs[1:]
    weights = [net.fixed(normal(*shape)) for shape in ((HIDDEN, READS), (HIDDEN, HIDDEN))]
    out = net.op(
        "UNIDIRECTIONAL_SEQUENCE_RNN",
        [given, *weights, net.fixed(normal(HIDDEN)), state],
        (BATCH, STEPS, HIDDEN),
        options=("SequenceRNNOptions", {"fusedActivationFunction": function}),
    )
    got = made(with_state(net.save(tmp_path, out), "state"))
    assert got.proof.holds, got.proof
    assert "RNN" in got.ops
