"""Any file that a trainer writes opens; anything else is refused with a sentence."""

from __future__ import annotations

import hashlib
import io
import os
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest

from edgesdk.errors import ModelError
from edgesdk.model import node_facts, open_model
from edgesdk.model.values import model_name

WriteModel = Callable[..., Path]
SMALL = "small (float[N, 4] x) => (float[N, 4] y) { y = Relu(x) }"


def test_facts_of_a_model_are_read_from_the_file(write_model: WriteModel) -> None:
    path = write_model(SMALL)
    source = open_model(path).source
    assert (source.opset, source.ir_version, source.format) == (17, 8, "onnx")
    assert [str(info) for info in source.inputs] == ["x: float32[N, 4]"]
    assert [str(info) for info in source.outputs] == ["y: float32[N, 4]"]
    assert source.op_counts == {"Relu": 1}
    assert source.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert source.bytes == path.stat().st_size
    assert not source.external_data


def test_initializers_that_repeat_as_inputs_are_no_inputs(write_model: WriteModel) -> None:
    path = write_model(
        "g (float[2] x, float[2] w) => (float[2] y) { y = Add(x, w) }",
        opset=9,
        ir_version=3,
        weights={"w": np.ones(2, np.float32)},
    )
    opened = open_model(path)
    assert [info.name for info in opened.source.inputs] == ["x"]
    assert opened.source.ir_version == 3
    assert opened.source.initializer_bytes == 8


def test_names_with_odd_characters_survive(write_model: WriteModel) -> None:
    path = write_model(SMALL)
    model = onnx.load(path)
    odd = "in put/0:é\n\x1b[31m"
    model.graph.input[0].name = model.graph.node[0].input[0] = odd
    path.write_bytes(model.SerializeToString())
    assert open_model(path).source.inputs[0].name == odd


def test_weights_in_constant_nodes_are_counted(write_model: WriteModel) -> None:
    path = write_model(
        "g (float[2] x) => (float[2] y) { w = Constant<value_floats=[1.0, 2.0]>() "
        "v = Constant<value = float[2] {3.0, 4.0}>() z = Add(x, w) y = Add(z, v) }"
    )
    assert open_model(path).source.initializer_bytes == 8


def test_local_functions_are_put_in_place_of_their_calls(tmp_path: Path) -> None:
    text = """
    <ir_version: 8, opset_import: ["" : 17, "mine" : 1]>
    g (float[2] x) => (float[2] y) { y = mine.twice(x) }
    <domain: "mine", opset_import: ["" : 17]>
    twice (a) => (b) { b = Add(a, a) }
    """
    path = tmp_path / "f.onnx"
    path.write_bytes(onnx.parser.parse_model(text).SerializeToString())
    assert open_model(path).source.op_counts == {"Add": 1}


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "the file is empty"),
        (b"\x80\x04\x95\x10\x00\x00", "it is a Python pickle, which runs code"),
        (b"\x89HDF\r\n\x1a\n" + bytes(64), "it is an HDF5 file, as Keras writes"),
        (b"version https://git-lfs.github.com/spec/v1\n", "it is a Git LFS pointer"),
        (b"<!DOCTYPE html><html>", "it is an HTML or XML page"),
        (b"\x1f\x8b\x08\x00rest", "it is a gzip archive"),
        (b"\x93NUMPY\x01\x00", "it is a NumPy array"),
        (b"hello, this is a note\n", "it is text"),
        (b"GGUF\x03\x00\x00\x00", "it is a GGUF file"),
        (b'\x10\x00\x00\x00\x00\x00\x00\x00{"a":1}', "it is a safetensors file"),
        (bytes(range(200, 256)) * 4, "it is not an ONNX file"),
        (b"\x08\x08", "it is not an ONNX file: it holds no graph"),
    ],
)
def test_other_files_are_named_by_content(tmp_path: Path, content: bytes, says: str) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(content)
    with pytest.raises(ModelError, match=f"cannot open .*{says}") as caught:
        open_model(path)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    ("members", "says"),
    [
        (["archive/data.pkl", "archive/data/0"], "a PyTorch checkpoint, which runs code"),
        (["m/data.pkl", "m/constants.pkl", "m/code/__torch__.py"], "a TorchScript archive"),
        (["m/archive_format", "m/models/model.json"], "a PyTorch program of torch.export"),
        (["1.npy", "schema.json"], "a skops archive"),
        (["weights.pkl"], "a PyTorch archive, which runs code"),
        (["config.json", "metadata.json", "model.weights.h5"], "a Keras archive"),
        (["x.npy"], "an .npz of arrays"),
        (["m/saved_model.pb"], "a zipped TensorFlow SavedModel"),
        (["model.onnx"], "a zip archive with an .onnx file in it"),
        (["readme"], "a zip archive"),
    ],
)
def test_zip_archives_are_told_apart(tmp_path: Path, members: list[str], says: str) -> None:
    held = io.BytesIO()
    with zipfile.ZipFile(held, "w") as archive:
        for name in members:
            archive.writestr(name, "x")
    path = tmp_path / "model.onnx"
    path.write_bytes(held.getvalue())
    with pytest.raises(ModelError, match=says):
        open_model(path)


def test_missing_files_folders_and_pipes_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no such file"):
        open_model(tmp_path / "none.onnx")
    with pytest.raises(ModelError, match="it is a folder"):
        open_model(tmp_path)
    (tmp_path / "saved_model.pb").write_bytes(b"x")
    with pytest.raises(ModelError, match="it is a TensorFlow SavedModel"):
        open_model(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ModelError, match="it is neither a file nor a folder"):
        open_model(tmp_path / "pipe")
    with pytest.raises(ModelError, match="cannot open"):
        open_model(Path("a\0b"))


def test_a_file_of_two_gibibytes_is_refused_without_reading_it(tmp_path: Path) -> None:
    path = tmp_path / "big.onnx"
    with path.open("wb") as stream:
        stream.write(b"\x08\x08")
        stream.truncate((1 << 31) + 1)
    with pytest.raises(ModelError, match=r"it has 2147483649 bytes \(an ONNX file has less"):
        open_model(path)


def test_truncation_anywhere_is_refused(write_model: WriteModel) -> None:
    path = write_model(SMALL, weights={"w": np.arange(64, dtype=np.float32)})
    whole = path.read_bytes()
    for sixteenth in range(1, 16):
        path.write_bytes(whole[: len(whole) * sixteenth // 16])
        with pytest.raises(ModelError, match=r"cut short|not an ONNX file|has no|imports no"):
            open_model(path)


@pytest.mark.parametrize(
    ("text", "opset", "says"),
    [
        (
            "g (float[2] x) => (float[2] y) { [n1] y = Relux(x) }",
            17,
            r"node 0 'n1' uses the unknown operator 'Relux' \(ONNX opset 17",
        ),
        (
            "g (float[2] x) => (float[2] y) { [n1] y = Gelu(x) }",
            17,
            r"node 0 'n1' uses Gelu, which came with opset 20 \(the model says opset 17\)",
        ),
        (
            "g (float[1,1,2,2] x, float[4] s) => (float[n] y) { y = Upsample(x, s) }",
            11,
            "uses Upsample, which ONNX removed at opset 10",
        ),
        ("g (float[2] x) => (float[3] y) { y = Relu(x) }", 17, None),
        (
            "g (float[2] x, float[3] z) => (float[n] y) { y = Add(x, z) }",
            17,
            "its shapes contradict each other",
        ),
        (
            "g (float[2] x) => (float[2] y) { y = Relu(nobody) }",
            17,
            r"node 0 .*\(Relu\) reads 'nobody', which nothing gives",
        ),
    ],
)
def test_graphs_that_make_no_sense_name_the_node(
    write_model: WriteModel, text: str, opset: int, says: str | None
) -> None:
    path = write_model(text, opset=opset)
    if says is None:  # a stale output shape is put right, not refused
        assert open_model(path).source.outputs[0].shape == (2,)
        return
    with pytest.raises(ModelError, match=says):
        open_model(path)


def _with_operator(folder: Path, domain: str, op: str, *, imports: str) -> Path:
    path = folder / "c.onnx"
    text = f"""
    <ir_version: 8, opset_import: ["" : 17, "{imports}" : 1]>
    g (float[2] x) => (float[2] z) {{ [n7] y = {domain}.{op}(x)  z = Relu(y) }}
    """
    path.write_bytes(onnx.parser.parse_model(text).SerializeToString())
    return path


def test_custom_operators_name_node_operator_and_domain(tmp_path: Path) -> None:
    path = _with_operator(tmp_path, "my.ops", "Magic", imports="my.ops")
    with pytest.raises(
        ModelError, match="'n7' uses the custom operator 'Magic' of domain"
    ) as got:
        open_model(path)
    assert got.value.facts["op"] == "Magic"
    assert "replace it by standard operators" in got.value.hint


def test_operators_that_onnxruntime_adds_are_left_to_the_backends(tmp_path: Path) -> None:
    opened = open_model(
        _with_operator(tmp_path, "com.microsoft", "Gelu", imports="com.microsoft")
    )
    assert opened.source.op_counts == {"Relu": 1, "com.microsoft.Gelu": 1}
    assert opened.source.opsets["com.microsoft"] == 1
    first = node_facts(opened.ir)[0]
    assert (first.domain, first.since_version, first.output_types) == (
        "com.microsoft",
        0,
        (None,),
    )


def test_graphs_laid_out_for_one_processor_say_how_to_save_them(tmp_path: Path) -> None:
    path = _with_operator(
        tmp_path, "com.microsoft.nchwc", "Conv", imports="com.microsoft.nchwc"
    )
    with pytest.raises(ModelError, match="custom operator 'Conv'") as got:
        open_model(path)
    assert "at most ORT_ENABLE_EXTENDED" in got.value.hint


def test_a_domain_that_is_not_imported_is_refused(tmp_path: Path) -> None:
    path = _with_operator(tmp_path, "com.microsoft", "Gelu", imports="my.ops")
    with pytest.raises(ModelError, match="custom operator 'Gelu'") as got:
        open_model(path)
    assert "imports no version of that domain" in got.value.hint


def test_maps_are_refused_with_the_exporter_s_option(tmp_path: Path) -> None:
    text = """
    <ir_version: 8, opset_import: ["" : 17, "ai.onnx.ml" : 3]>
    g (float[1, 2] x) => (float[1, 2] y) { y = Relu (x) }
    """
    model = onnx.parser.parse_model(text)
    value = model.graph.output[0].type
    value.Clear()
    one = value.sequence_type.elem_type.map_type
    one.key_type = onnx.TensorProto.INT64
    one.value_type.tensor_type.elem_type = onnx.TensorProto.FLOAT
    path = tmp_path / "map.onnx"
    path.write_bytes(model.SerializeToString())
    with pytest.raises(ModelError, match=r"'y' is a map \(expected tensors\)") as got:
        open_model(path)
    assert "zipmap" in got.value.hint


def test_versions_from_the_future_are_named(write_model: WriteModel) -> None:
    with pytest.raises(ModelError, match="its opset is 999"):
        open_model(write_model(SMALL, opset=999))
    with pytest.raises(ModelError, match="its IR version is 99"):
        open_model(write_model(SMALL, ir_version=99))


@pytest.mark.parametrize(
    ("dims", "raw", "says"),
    [
        ([1 << 44], b"", "has 0 bytes|has 0 values"),
        ([1 << 31, 1 << 31, 1 << 31], b"", "multiplies to"),
        ([-1], b"", "its shape is"),
        ([4], b"\0" * 15, "it has 15 bytes"),
    ],
)
def test_tensors_whose_bytes_do_not_fit_their_shape_are_refused(
    write_model: WriteModel, dims: list[int], raw: bytes, says: str
) -> None:
    path = write_model(SMALL)
    model = onnx.load(path)
    model.graph.initializer.append(
        onnx.TensorProto(name="w", data_type=1, dims=dims, raw_data=raw)
    )
    path.write_bytes(model.SerializeToString())
    with pytest.raises(ModelError, match=f"cannot read tensor 'w' of .*{says}"):
        open_model(path)


def test_a_constant_of_terabytes_costs_no_memory(write_model: WriteModel) -> None:
    path = write_model(
        "g (float[1] x) => (float[n] y) { s = Constant<value_ints=[17592186044416]>() "
        "c = ConstantOfShape(s) z = Add(c, x) i = Constant<value_ints=[3]>() y = Gather(z, i) }"
    )
    with pytest.raises(ModelError, match="ONNX's library ran out of memory on it"):
        open_model(path)


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/a/Mobile Net (v2).onnx", "Mobile-Net-v2"),
        ("/a/.x.onnx", "x"),
        ("/a/日本.onnx", "model"),
        ("/a/-rf.onnx", "rf"),
        ("/a/" + "x" * 90 + ".onnx", "x" * 64),
    ],
)
def test_names_for_people_are_plain(path: str, name: str) -> None:
    assert model_name(Path(path)) == name
