"""Parts that are cut out of a Q/DQ graph keep the types, names and layouts of their ends."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from edgesdk.backends import PartJob
from edgesdk.backends.litert.compiler import compile_part, lower_part
from edgesdk.errors import CompileError
from edgesdk.model.tflite_graph import read_tflite_graphs
from tests.unit.backends.litert.graphs import build, lowered, same_numbers, with_pairs
from tests.unit.backends.litert.test_lower_basics import GRAPHS, numbers

POOLED = (
    "g (float[1,4,9,8] x) => (float[1,6,1,1] y) "
    "{ c = Conv<pads=[1,1,1,1]>(x, k, b) r = Relu(c) p = MaxPool<kernel_shape=[3,3]>(r) "
    "y = GlobalAveragePool(p) }"
)
WEIGHTS = {"k": numbers(6, 4, 3, 3), "b": numbers(6)}


def cut(model: ir.Model, inputs: list[str], outputs: list[str]) -> ir.Model:
    graph = ir.convenience.extract(model.graph, inputs, outputs)
    graph.opset_imports.update(model.graph.opset_imports)
    return ir.Model(graph, ir_version=model.ir_version)


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int16"])
def test_quantized_numbers_go_in_and_out_as_they_are(dtype: str, tmp_path: Path) -> None:
    model = cut(with_pairs(build(POOLED, WEIGHTS), dtype), ["x_q"], ["p_q"])
    answers = same_numbers(model, tmp_path)
    assert answers.given["p_q"].dtype == dtype
    tensors = answers.graph.tensors
    assert [tensors[index].name for index in answers.graph.inputs] == ["x_q"]
    assert [tensors[index].dtype for index in answers.graph.inputs] == [dtype]
    read = [tensors[op.inputs[0]].dtype for op in answers.graph.ops]
    assert "float32" not in read


def test_a_part_without_pairs_stays_in_float(tmp_path: Path) -> None:
    model = with_pairs(build(POOLED, WEIGHTS))
    # between the halves: what comes in is dequantized, what goes out is quantized elsewhere
    answers = same_numbers(cut(model, ["x_d"], ["c"]), tmp_path)
    main = next(op for op in answers.graph.ops if op.name == "CONV_2D")
    assert {answers.graph.tensors[index].dtype for index in main.inputs} == {"float32"}


def test_the_kernels_compute_on_the_grids_of_the_graph() -> None:
    model = with_pairs(build(POOLED, WEIGHTS), "uint8", bare=["c"])
    graph = lowered(model)
    scales = {
        name: (float(value.const_value.numpy()), int(zero.const_value.numpy()))
        for name in ("x", "r")
        for value, zero in [
            (model.graph.initializers[f"{name}_s"], model.graph.initializers[f"{name}_z"])
        ]
        if value.const_value is not None and zero.const_value is not None
    }
    conv = next(op for op in graph.ops if op.name == "CONV_2D")
    read, weights, bias = (graph.tensors[index] for index in conv.inputs)
    made = graph.tensors[conv.outputs[0]]
    assert (read.scales[0], read.zero_points[0] + 128) == scales["x"]
    # the Relu is the activation of the convolution, which rounds to what is behind it
    assert (made.scales[0], made.zero_points[0] + 128) == scales["r"]
    assert conv.options["activation"] == "RELU"
    assert weights.axis == 0
    assert set(weights.zero_points) == {0}
    expected = np.array(weights.scales, np.float64) * read.scales[0]
    assert np.allclose(bias.scales, expected, rtol=1e-6)
    assert "RELU" not in [op.name for op in graph.ops]


def test_a_pair_with_another_scale_requantizes(tmp_path: Path) -> None:
    model = with_pairs(build(*GRAPHS["max pool"]))
    # the pool keeps the grid of its input; its output's pair has wider or narrower steps
    answers = same_numbers(model, tmp_path)
    assert answers.ops["QUANTIZE"] == 2


@pytest.mark.parametrize(
    "text",
    [
        "g (float[2,3] x) => (float[2,3] y, float[2,3] z) { y = Relu(x) z = Identity(y) }",
        "g (float[2,3] x) => (float[2,3] y) { y = Identity(x) }",
        "g (float[2,3] x) => (float[3,2] y, float[2,3] z) "
        "{ y = Transpose<perm=[1,0]>(x) z = Transpose<perm=[1,0]>(y) }",
        "g (float[2,3] x) => (float[2,3] y) { y = Add(c, x) }",
    ],
)
def test_every_output_is_a_tensor_of_its_own_name(text: str, tmp_path: Path) -> None:
    answers = same_numbers(build(text, {"c": numbers(2, 3)}), tmp_path)
    names = [answers.graph.tensors[index].name for index in answers.graph.outputs]
    assert len(set(answers.graph.outputs)) == len(names)
    (signature,) = answers.graph.signatures
    assert signature.key == "serving_default"
    assert set(signature.inputs) == {"x"}
    assert set(signature.outputs) == set(names)
    assert "min_runtime_version" in answers.graph.metadata


def test_layouts_meet_without_transposes_between(tmp_path: Path) -> None:
    """As exporters from channels-last frameworks write it: a Transpose around each kernel."""
    text = (
        "g (float[1,8,8,4] x) => (float[1,8,8,6] y) "
        "{ a = Transpose<perm=[0,3,1,2]>(x) c = Conv<pads=[1,1,1,1]>(a, k, b) "
        "d = Transpose<perm=[0,2,3,1]>(c) e = Mul(d, s) f = Transpose<perm=[0,3,1,2]>(e) "
        "h = Conv<pads=[1,1,1,1]>(f, l) y = Transpose<perm=[0,2,3,1]>(h) }"
    )
    constants = {**WEIGHTS, "s": numbers(6), "l": numbers(6, 6, 3, 3)}
    answers = same_numbers(build(text, constants), tmp_path)
    assert answers.ops == {"CONV_2D": 2, "MUL": 1}


def test_one_transpose_at_each_end_of_a_channels_first_graph(tmp_path: Path) -> None:
    text = (
        "g (float[1,4,8,8] x) => (float[1,6,8,8] y) { c = Conv<pads=[1,1,1,1]>(x, k, b) "
        "s = Sigmoid(c) m = Mul(c, s) r = Reshape(m, n) q = Reshape(r, p) "
        "d = Conv<pads=[1,1,1,1]>(q, l) y = Add(d, c) }"
    )
    constants = {
        **WEIGHTS,
        "l": numbers(6, 6, 3, 3),
        "n": np.array([1, 6, 64]),
        "p": np.array([1, 6, 8, 8]),
    }
    answers = same_numbers(build(text, constants), tmp_path)
    assert answers.ops["TRANSPOSE"] == 2
    assert "RESHAPE" not in answers.ops


def test_halves_are_stored_as_halves(tmp_path: Path) -> None:
    text = (
        "g (float[1,4,8,8] x) => (float[1,6,8,8] y) { h = Cast<to=10>(x) "
        "c = Conv<pads=[1,1,1,1]>(h, k, b) y = Cast<to=1>(c) }"
    )
    halves = {name: array.astype(np.float16) for name, array in WEIGHTS.items()}
    answers = same_numbers(build(text, halves), tmp_path, bound=3e-3)
    constants = {
        t.dtype for t in answers.graph.tensors if t.constant is not None and t.elements > 8
    }
    assert constants == {"float16"}


def job(folder: Path, model: ir.Model | None) -> PartJob:
    return PartJob(index=3, model=model, source=None, precision="int8", folder=folder)


def test_a_part_is_compiled_into_its_folder_with_what_is_inside(tmp_path: Path) -> None:
    made = compile_part(job(tmp_path, with_pairs(build(POOLED, WEIGHTS))))
    path = made.files["model"]
    assert path.parent == tmp_path
    assert made.format == "tflite"
    (graph,) = read_tflite_graphs(path.read_bytes())[0]
    assert made.inside["operators"]["CONV_2D"] == 1
    assert sum(made.inside["operators"].values()) == len(graph.ops)


def test_a_part_without_a_graph_is_not_lowered(tmp_path: Path) -> None:
    with pytest.raises(CompileError, match="deployed as it is"):
        lower_part(job(tmp_path, None))
