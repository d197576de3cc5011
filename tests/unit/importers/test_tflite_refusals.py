"""What has no form in ONNX is refused by name and place, and broken files never crash."""

from __future__ import annotations

import contextlib
from pathlib import Path

import flatbuffers
import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from hypothesis import given, settings
from hypothesis import strategies as st

from edgesdk.errors import ModelError
from edgesdk.importers.importing import open_imported
from edgesdk.importers.tflite.importing import import_tflite
from edgesdk.importers.tflite.walk import convert_tflite
from edgesdk.model.tflite import open_tflite
from tests.unit.importers.tflite_files import Net, grid_over, opened


def custom(folder: Path, name: str) -> Path:
    """A file whose second operator is a custom one."""
    net = Net()
    first = net.op("ABS", [net.given((2, 3))], (2, 3))
    path = net.save(folder, net.op("CUSTOM", [first], (2, 3)))
    model = schema.ModelT.InitFromPackedBuf(path.read_bytes(), 0)
    model.operatorCodes[1].customCode = name.encode()
    builder = flatbuffers.Builder(4096)
    builder.Finish(model.Pack(builder), b"TFL3")
    path.write_bytes(bytes(builder.Output()))
    return path


@pytest.mark.parametrize(
    ("name", "reason", "hint"),
    [
        ("edgetpu-custom-op", "a compiler made for an Edge TPU", "edgetpu_compiler read"),
        ("TFLite_Detection_PostProcess", "decodes boxes", "export the detector without it"),
        ("FlexErf", "TensorFlow's Erf", "TFLITE_BUILTINS"),
        ("MyOp", "does not say what it computes", "cut the model in front of it"),
    ],
)
def test_a_custom_operator_is_refused_with_its_place(
    name: str, reason: str, hint: str, tmp_path: Path
) -> None:
    with pytest.raises(ModelError) as caught:
        convert_tflite(open_tflite(custom(tmp_path, name)))
    assert f"operator 1 ({name})" in str(caught.value)
    assert reason in str(caught.value)
    assert hint in caught.value.hint
    assert caught.value.facts["operator"] == 1


@pytest.mark.parametrize(
    ("code", "options", "reason"),
    [
        ("CALL_ONCE", ("CallOnceOptions", {"initSubgraphIndex": 0}), "runs other graphs"),
        ("READ_VARIABLE", None, "keeps a state"),
        ("SVDF", None, "keeps a state"),
        ("RANDOM_UNIFORM", None, "draws random numbers"),
        ("WHERE", None, "is not converted"),
    ],
)
def test_flow_state_and_chance_are_refused(
    code: str, options: object, reason: str, tmp_path: Path
) -> None:
    net = Net()
    tensor = net.given((2, 3))
    for _ in range(6):
        tensor = net.op(code, [tensor], (2, 3), options=options)  # type: ignore[arg-type]
    with pytest.raises(ModelError, match=reason) as caught:
        convert_tflite(opened(net, tmp_path, tensor))
    assert caught.value.facts["refused"] == 6
    assert f"and 2 more: 2 {code}" in str(caught.value)


def test_what_lies_behind_a_refused_operator_is_not_blamed(tmp_path: Path) -> None:
    net = Net()
    first = net.op("SVDF", [net.given((2, 3))], (2, 3))
    out = net.op("ABS", [net.op("ABS", [first], (2, 3))], (2, 3))
    with pytest.raises(ModelError) as caught:
        convert_tflite(opened(net, tmp_path, out))
    assert caught.value.facts["refused"] == 1
    assert "ABS" not in str(caught.value)


def test_shapes_that_only_running_tells_are_refused(tmp_path: Path) -> None:
    net = Net()
    data, begin = net.given((4, 3)), net.given((2,), "int32")
    size = net.fixed(np.array([2, 2], "i4"))
    out = net.op("SLICE", [data, begin, size], (2, 2), options=("SliceOptions", {}))
    with pytest.raises(ModelError, match=r"operator 0 \(SLICE\): its begins are not known"):
        convert_tflite(opened(net, tmp_path, out))


def test_a_reshape_to_another_count_is_refused(tmp_path: Path) -> None:
    net = Net()
    out = net.op("RESHAPE", [net.given((4, 3))], (5, 3), options=("ReshapeOptions", {}))
    with pytest.raises(ModelError, match="different counts of numbers"):
        convert_tflite(opened(net, tmp_path, out))


def test_a_stale_shape_of_an_output_gives_way_to_the_computed_one(tmp_path: Path) -> None:
    net = Net()
    out = net.op("ABS", [net.given((4, 3))], (3, 4))
    made = import_tflite(net.save(tmp_path, out), imports=tmp_path / "imports")
    (seen,) = open_imported(made).source.outputs
    assert seen.shape == (4, 3)


def test_operators_that_do_not_fit_each_other_are_refused(tmp_path: Path) -> None:
    net = Net()
    ends = [net.given((4, 3)), net.given((5, 2))]
    path = net.save(tmp_path, net.op("ADD", ends, (4, 3), options=("AddOptions", {})))
    with pytest.raises(ModelError, match=r"net\.tflite into ONNX: what its operators compute"):
        import_tflite(path, imports=tmp_path / "imports")
    assert not list((tmp_path / "imports").glob("[!.]*"))


def test_a_scale_that_is_no_number_is_refused(tmp_path: Path) -> None:
    net = Net()
    grid = grid_over(-1, 1, "int8")
    bad = type(grid)("int8", (float("nan"),), (0,))
    out = net.op("ABS", [net.given((2, 3), grid=bad)], (2, 3), grid=grid)
    with pytest.raises(ModelError, match="no positive number"):
        convert_tflite(opened(net, tmp_path, out))


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A file of many kinds of operators, on grids and in float."""
    net, random = Net(), np.random.default_rng(0)
    grid = grid_over(-3, 3, "int8")
    image = net.given((1, 6, 6, 2), grid=grid)
    kernel = random.integers(-9, 9, (4, 3, 3, 2)).astype("i1")
    weights = net.fixed(kernel, type(grid)("int8", (0.1,) * 4, (0,) * 4, 0))
    fields = {"padding": 0, "strideH": 2, "strideW": 1}
    tensor = net.op(
        "CONV_2D", [image, weights], (1, 3, 6, 4), options=("Conv2DOptions", fields), grid=grid
    )
    pads = net.fixed(np.array([[0, 0], [1, 1], [0, 2], [0, 0]], "i4"))
    tensor = net.op("PAD", [tensor, pads], (1, 5, 8, 4), options=("PadOptions", {}), grid=grid)
    tensor = net.op("DEQUANTIZE", [tensor], (1, 5, 8, 4))
    bounds = [
        net.fixed(np.array(each, "i4")) for each in ((0, 1, 0, 0), (1, 5, 8, 3), (1, 2, 1, 1))
    ]
    tensor = net.op(
        "STRIDED_SLICE", [tensor, *bounds], (1, 2, 8, 3), options=("StridedSliceOptions", {})
    )
    axes = net.fixed(np.array([1, 2], "i4"))
    tensor = net.op("MEAN", [tensor, axes], (1, 3), options=("ReducerOptions", {}))
    kernel = random.normal(size=(5, 3)).astype("f4")
    tensor = net.op(
        "FULLY_CONNECTED",
        [tensor, net.fixed(kernel), None],
        (1, 5),
        options=("FullyConnectedOptions", {}),
    )
    tensor = net.op("SOFTMAX", [tensor], (1, 5), options=("SoftmaxOptions", {"beta": 1.0}))
    return net.save(tmp_path_factory.mktemp("whole"), tensor).read_bytes()


@settings(max_examples=120)
@given(data=st.data())
def test_a_damaged_file_is_converted_or_refused(
    data: st.DataObject, whole: bytes, tmp_path_factory: pytest.TempPathFactory
) -> None:
    broken = bytearray(whole)
    for _ in range(data.draw(st.integers(1, 6))):
        at = data.draw(st.integers(8, len(broken) - 1))
        broken[at] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.getbasetemp() / "broken.tflite"
    path.write_bytes(bytes(broken))
    with contextlib.suppress(ModelError):
        file = open_tflite(path)
        made = convert_tflite(file)
        assert len(list(made.model.graph.outputs)) == len(file.graph.outputs)
