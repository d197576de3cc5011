"""Every operator between Q/DQ pairs: as many steps off onnxruntime as the bar allows.

Each graph is lowered, run in LiteRT with its CPU delegate and without, and compared with
onnxruntime on the same Q/DQ graph: within one step on 99.5 % of the elements. Where LiteRT has
a kernel for whole numbers, nothing between the graph's ends may be float.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from edgesdk.model.tflite_graph import read_tflite_graphs
from tests.unit.backends.litert.lowering import (
    LiteRT,
    beyond_steps,
    in_onnxruntime,
    lower,
    steps_of,
)
from tests.unit.backends.litert.operator_lines import LINES, Line
from tests.unit.backends.litert.pairs import on_grid, pair_everything

pytestmark = pytest.mark.slow

_STRAY = 0.005


def _paired(line: Line, dtype: str = "int8") -> ir.Model:
    # its ranges cover what is run later: where all saturates, everything agrees
    return pair_everything(line.model(), line.samples() + line.samples(seed=7), dtype=dtype)


def _far_in_steps(model: ir.Model, blob: bytes, line: Line) -> None:
    steps = steps_of(model)
    for raw in line.samples(seed=7):
        sample = on_grid(model, raw)
        wanted = in_onnxruntime(model, sample)
        for plain in (False, True):
            answers = LiteRT(blob, plain=plain).run(sample)
            assert set(answers) == set(wanted)
            for name, value in wanted.items():
                if value.dtype.kind != "f":
                    assert answers[name].dtype == value.dtype
                    assert np.mean(answers[name] != value) <= line.flips
                    continue
                beyond = beyond_steps(answers[name], value, steps[name])
                assert beyond <= _STRAY, f"{name} on {beyond:.1%} of elements, plain: {plain}"


@pytest.mark.parametrize("name", LINES)
def test_pairs_around_an_operator_keep_its_steps(name: str) -> None:
    line = LINES[name]
    model = _paired(line)
    made = lower(model)
    assert isinstance(made, bytes), made
    _far_in_steps(model, made, line)


@pytest.mark.parametrize("name", [name for name, line in LINES.items() if line.is_whole])
def test_what_has_a_kernel_for_whole_numbers_runs_in_it(name: str, tmp_path: Path) -> None:
    made = lower(_paired(LINES[name]))
    assert isinstance(made, bytes), made
    graph = read_tflite_graphs(made)[0][0]
    ends = {*graph.inputs, *graph.outputs}
    floats = [
        tensor.name
        for tensor in graph.tensors
        if tensor.dtype == "float32" and tensor.index not in ends
    ]
    assert not floats


@pytest.mark.parametrize("name", [name for name, line in LINES.items() if line.is_wide])
def test_sixteen_bits_keep_their_steps(name: str) -> None:
    line = LINES[name]
    model = _paired(line, "int16")
    made = lower(model)
    assert isinstance(made, bytes), made
    _far_in_steps(model, made, line)
