"""A TFLite file becomes a kept ONNX file, held against LiteRT, that says how near it is."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import flatbuffers
import numpy as np
import onnx_ir as ir
import pytest
from ai_edge_litert import schema_py_generated as schema

from edgesdk.backends.litert.lower import lower_graph
from edgesdk.cli.app import run
from edgesdk.errors import ModelError, ProofMismatch
from edgesdk.importers.importing import ImportChoices, import_model, open_imported
from edgesdk.importers.tflite.importing import import_tflite, origin_of
from edgesdk.importers.tflite.litert import LiteRT
from edgesdk.importers.tflite.prove import examples_of, prove_tflite
from edgesdk.importers.tflite.walk import convert_tflite
from edgesdk.importers.toolchains import Toolchains
from edgesdk.model.shapes import with_shapes
from edgesdk.model.simplify import simplify
from edgesdk.model.tflite import open_tflite
from edgesdk.model.tflite_graph import read_tflite_graphs
from tests.unit.importers.tflite_files import Net, grid_over


def network(folder: Path, *, whole: bool) -> Path:
    """A small classifier: two convolutions, a sum, a mean, a product."""
    net, random = Net(), np.random.default_rng(5)
    grid = grid_over(-3, 3, "int8") if whole else None
    image = net.given((1, 12, 12, 3), grid=grid)
    image.name = "image"

    def weights(shape: tuple[int, ...], read: float) -> list:
        real = (random.normal(size=shape) / np.sqrt(np.prod(shape[1:]))).astype("f4")
        bias = random.normal(size=shape[0]).astype("f4") / 4
        if not whole:
            return [net.fixed(real), net.fixed(bias)]
        scales = np.abs(real).reshape(shape[0], -1).max(1).astype("f4") / np.float32(127)
        if len(shape) == 2:
            scales = scales[:1] * 0 + scales.max()
        per = np.reshape(scales, (-1, *(1 for _ in shape[1:])))
        kind = type(grid_over(-1, 1, "int8"))
        axis = 0 if len(scales) > 1 else None
        sums = np.float32(scales * np.float32(read))
        return [
            net.fixed(
                np.clip(np.rint(real / per), -127, 127).astype("i1"),
                kind("int8", tuple(map(float, scales)), (0,) * len(scales), axis),
            ),
            net.fixed(
                np.rint(bias / sums).astype("i4"),
                kind("int32", tuple(map(float, sums)), (0,) * len(scales), axis),
            ),
        ]

    def span(low: float, high: float):
        return grid_over(low, high, "int8") if whole else None

    step = 6 / 255
    fields = {"padding": 0, "strideH": 1, "strideW": 1, "fusedActivationFunction": 1}
    first = net.op(
        "CONV_2D",
        [image, *weights((8, 3, 3, 3), step)],
        (1, 12, 12, 8),
        options=("Conv2DOptions", fields),
        grid=span(0, 4),
    )
    second = net.op(
        "CONV_2D",
        [first, *weights((8, 3, 3, 8), 4 / 255)],
        (1, 12, 12, 8),
        options=("Conv2DOptions", fields),
        grid=span(0, 4),
    )
    both = net.op(
        "ADD", [first, second], (1, 12, 12, 8), options=("AddOptions", {}), grid=span(0, 6)
    )
    axes = net.fixed(np.array([1, 2], "i4"))
    mean = net.op("MEAN", [both, axes], (1, 8), options=("ReducerOptions", {}), grid=span(0, 2))
    scores = net.op(
        "FULLY_CONNECTED",
        [mean, *weights((4, 8), 2 / 255)],
        (1, 4),
        options=("FullyConnectedOptions", {}),
        grid=span(-3, 3),
    )
    scores.name = "scores"
    return net.save(folder, scores)


def test_a_file_is_imported_once_and_says_how_near_it_is(tmp_path: Path) -> None:
    path = network(tmp_path, whole=True)
    told: list[str] = []
    first = import_tflite(path, imports=tmp_path / "imports", on_note=told.append)
    again = import_tflite(path, imports=tmp_path / "imports")
    assert (first.known, again.known) == (False, True)
    assert first.path == again.path
    assert first.origin == again.origin
    assert first.origin.format == "tflite"
    assert first.origin.examples == 3
    assert first.origin.max_abs_error is not None
    assert first.origin.max_abs_error <= 1
    assert any("within one step of LiteRT's" in note for note in told)
    opened = open_imported(first)
    (given,), (out,) = opened.source.inputs, opened.source.outputs
    assert (given.name, given.dtype, given.shape) == ("image", "int8", (1, 12, 12, 3))
    assert (out.name, out.dtype, out.shape) == ("scores", "int8", (1, 4))


def test_import_model_takes_tflite_files_and_refuses_choices_about_them(tmp_path: Path) -> None:
    path = network(tmp_path, whole=False)
    where = {"toolchains": Toolchains(tmp_path / "none"), "imports": tmp_path / "imports"}
    made = import_model(path, **where)
    assert made.origin.max_rel_error is not None
    assert made.origin.max_rel_error <= 1e-4
    assert not (tmp_path / "none").exists()
    with pytest.raises(ModelError, match=r"cannot use --opset for .*net\.tflite"):
        import_model(path, choices=ImportChoices(opset=17), **where)


@pytest.mark.parametrize("whole", [False, True])
def test_the_graph_goes_back_to_tflite_with_the_same_answers(
    whole: bool, tmp_path: Path
) -> None:
    """Our own lowering takes the Q/DQ graph as it takes a quantizer's: integers all the way."""
    file = open_tflite(network(tmp_path, whole=whole))
    model = simplify(with_shapes(convert_tflite(file).model))
    blob = lower_graph(with_shapes(model))
    graph = read_tflite_graphs(blob)[0][0]
    kinds = [op.name for op in graph.ops]
    assert kinds.count("CONV_2D") == 2
    if whole:
        assert not {"DEQUANTIZE", "QUANTIZE"} & set(kinds)
    for example in examples_of(file.graph):
        (wanted,), (got,) = LiteRT(file.graph.data).run(example), LiteRT(blob).run(example)
        if whole:
            assert np.abs(got.astype(int) - wanted.astype(int)).max() <= 1
        else:
            assert np.abs(got - wanted).max() <= 1e-5 * np.abs(wanted).max()


def test_pairs_have_the_scales_and_zero_points_of_the_file(tmp_path: Path) -> None:
    file = open_tflite(network(tmp_path, whole=True))
    model = convert_tflite(file).model
    wanted = {
        (tuple(np.float32(t.scales)), t.zero_points, t.dtype)
        for t in file.graph.tensors
        if t.scales and t.constant is None
    }
    seen = set()
    for node in model.graph:
        if node.op_type == "QuantizeLinear":
            scale, zero = (v.const_value.numpy() for v in node.inputs[1:])
            seen.add(
                (
                    tuple(np.atleast_1d(scale)),
                    tuple(np.atleast_1d(zero).tolist()),
                    zero.dtype.name,
                )
            )
    assert seen
    assert seen <= wanted
    biases = [
        v for v in model.graph.initializers.values() if v.const_value.dtype == ir.DataType.INT32
    ]
    assert len(biases) >= 3


def test_a_graph_that_answers_differently_names_the_operator(tmp_path: Path) -> None:
    file = open_tflite(network(tmp_path, whole=True))
    made = convert_tflite(file)
    (_, second) = [n for n in made.model.graph if n.op_type == "Conv"]
    weights = second.inputs[1].producer().inputs[0]
    weights.const_value = ir.tensor(-weights.const_value.numpy(), name=weights.name)
    proof = prove_tflite(file.graph, made)
    assert not proof.holds
    with pytest.raises(ProofMismatch, match=r"the first operator that differs is operator 1 "):
        origin_of(file, made, proof)


def test_without_litert_nothing_is_compared_and_that_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = network(tmp_path, whole=True)
    monkeypatch.setitem(sys.modules, "ai_edge_litert", None)
    told: list[str] = []
    made = import_tflite(path, imports=tmp_path / "imports", on_note=told.append)
    assert made.origin.examples == 0
    assert made.origin.max_abs_error is None
    assert any("ai-edge-litert is not installed" in note for note in told)


def open_file(folder: Path) -> Path:
    """A file whose batch and length are open, and stated as 1 and 4."""
    net = Net()
    given = net.given((1, 4, 3))
    given.name = "waves"
    fields = {"keepNumDims": True}
    dense = net.op(
        "FULLY_CONNECTED",
        [given, net.fixed(np.ones((2, 3), "f4")), None],
        (1, 4, 2),
        options=("FullyConnectedOptions", fields),
    )
    axes = net.fixed(np.array([1], "i4"))
    out = net.op("MEAN", [dense, axes], (1, 2), options=("ReducerOptions", {}))
    path = net.save(folder, out)
    model = schema.ModelT.InitFromPackedBuf(path.read_bytes(), 0)
    for tensor in model.subgraphs[0].tensors:
        if tensor.name in (b"waves", dense.name.encode()):
            tensor.shapeSignature = np.array([-1, -1, tensor.shape[2]], np.int32)
    builder = flatbuffers.Builder(4096)
    builder.Finish(model.Pack(builder), b"TFL3")
    path.write_bytes(bytes(builder.Output()))
    return path


def test_open_extents_are_fixed_as_stated_and_told(tmp_path: Path) -> None:
    made = import_tflite(open_file(tmp_path), imports=tmp_path / "imports")
    assert made.origin.notes[0].endswith("(waves) are fixed: waves: float32[1, 4, 3]")


def test_open_extents_are_fixed_as_the_user_says(tmp_path: Path) -> None:
    path = open_file(tmp_path)
    made = import_tflite(path, imports=tmp_path / "imports", shapes={"": (2, 7, 3)})
    opened = open_imported(made)
    assert opened.source.inputs[0].shape == (2, 7, 3)
    assert opened.source.outputs[0].shape == (2, 2)
    assert made.origin.examples == 3
    assert made.path != import_tflite(path, imports=tmp_path / "imports").path


@pytest.mark.parametrize(
    ("shapes", "why"),
    [
        ({"other": (1, 4, 3)}, r"no such input \(it has 'waves'\)"),
        ({"waves": (1, 4, 5)}, r"the file states \['\?', '\?', 3\]"),
        ({"waves": (1, None, 3)}, "the file states"),
        ({"waves": (1, 4)}, "the file states"),
    ],
)
def test_shapes_that_do_not_fit_are_refused(
    shapes: dict[str, tuple[int | None, ...]], why: str, tmp_path: Path
) -> None:
    with pytest.raises(ModelError, match=why):
        import_tflite(open_file(tmp_path), imports=tmp_path / "imports", shapes=shapes)


@pytest.fixture
def work(tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return network(tmp_path, whole=True)


def test_import_command(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code = run(["import", work.name, "-o", "made/net.onnx", "--format", "json"])
    said = capsys.readouterr()
    assert code == 0, said.err
    record = json.loads(said.out)
    assert record["origin"]["format"] == "tflite"
    assert Path("made/net.onnx").is_file()
    assert run(["import", work.name, "-o", "a.onnx"]) == 0
    assert "within one step" in (said.err + capsys.readouterr().out)


def test_a_target_without_a_tflite_runtime_gets_a_converted_graph(
    work: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert (
        run(["plan", work.name, "--target", "intel-npu-core-ultra-1", "--format", "json"]) == 0
    )
    said = capsys.readouterr()
    record = json.loads(said.out)
    assert "was converted to ONNX" in said.err
    assert record["precision"] == "int8"
    assert {node["op"] for node in record["nodes"]} >= {"Conv", "QuantizeLinear"}


def test_a_target_with_a_tflite_runtime_gets_the_file_as_it_is(
    work: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["plan", work.name, "--target", "raspberry-pi-5", "--format", "json"]) == 0
    said = capsys.readouterr()
    assert json.loads(said.out)["precision"] == "as-is"
    assert "converted" not in said.err


def test_a_build_for_another_runtime_answers_as_the_file_does(
    work: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["build", work.name, "--target", "intel-npu-core-ultra-1", "-o", "b"]) == 0
    said = capsys.readouterr()
    assert "was converted to ONNX" in said.err
    from edgesdk.bundle import read_bundle

    manifest = read_bundle(Path("b")).manifest
    assert manifest["model"]["format"] == "onnx"


def test_a_file_that_no_way_leads_from_says_both(
    tmp_path: Path,
    home: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    from tests.unit.importers.test_tflite_refusals import custom

    monkeypatch.chdir(tmp_path)
    path = custom(tmp_path, "edgetpu-custom-op")
    assert run(["plan", path.name, "--target", "intel-npu-core-ultra-1"]) == 3
    said = capsys.readouterr().err
    assert "nor can it be converted to ONNX" in said
    assert "edgetpu_compiler read" in said
