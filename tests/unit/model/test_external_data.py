"""External data lies in the model's folder, in plain files, or the model is refused."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import onnx
import pytest

from edgesdk.errors import ModelError
from edgesdk.model import open_model, save_model

SHAPE = [4]
ARRAY = np.arange(4, dtype=np.float32)


def write_external(folder: Path, location: str = "w.bin", **entries: str) -> Path:
    """Write y = x + w with w outside the file; ``entries`` replace or add to where it is."""
    model = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["" : 17]> g (float[4] x) => (float[4] y) '
        "{ y = Add(x, w) }"
    )
    tensor = onnx.TensorProto(
        name="w", data_type=1, dims=SHAPE, data_location=onnx.TensorProto.EXTERNAL
    )
    for key, value in {"location": location, **entries}.items():
        tensor.external_data.add(key=key, value=value)
    model.graph.initializer.append(tensor)
    path = folder / "m.onnx"
    path.write_bytes(model.SerializeToString())
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    inside = tmp_path / "models"
    inside.mkdir()
    (inside / "w.bin").write_bytes(ARRAY.tobytes())
    (tmp_path / "secret").write_bytes(bytes(64))
    return inside


def test_external_data_is_found_and_belongs_to_the_hash(folder: Path) -> None:
    path = write_external(folder)
    opened = open_model(path)
    assert opened.source.external_data
    assert opened.source.bytes == path.stat().st_size + 16
    np.testing.assert_array_equal(opened.ir.graph.initializers["w"].const_value.numpy(), ARRAY)
    (folder / "w.bin").write_bytes((ARRAY + 1).tobytes())
    assert open_model(path).source.sha256 != opened.source.sha256


def test_external_data_may_lie_in_a_folder_below(folder: Path) -> None:
    (folder / "deep").mkdir()
    (folder / "deep" / "w").write_bytes(bytes(8) + ARRAY.tobytes())
    opened = open_model(write_external(folder, "deep/w", offset="8", length="16"))
    np.testing.assert_array_equal(opened.ir.graph.initializers["w"].const_value.numpy(), ARRAY)


@pytest.mark.parametrize(
    "location",
    ["../secret", "/etc/passwd", "a/../../secret", "", ".", "..", "a\\b", "a//b", "./w.bin"],
)
def test_locations_that_are_not_plain_are_refused(folder: Path, location: str) -> None:
    with pytest.raises(
        ModelError, match=r"cannot read tensor 'w' .*expected a plain name in the"
    ):
        open_model(write_external(folder, location))


def test_a_link_is_not_followed(folder: Path) -> None:
    (folder / "w.bin").unlink()
    (folder / "w.bin").symlink_to(folder.parent / "secret")
    with pytest.raises(ModelError, match="expected a plain file, no link"):
        open_model(write_external(folder))


def test_a_linked_folder_is_not_followed(folder: Path) -> None:
    (folder / "deep").symlink_to(folder.parent)
    with pytest.raises(ModelError, match="expected a plain file, no link"):
        open_model(write_external(folder, "deep/secret"))


def test_a_second_name_of_a_file_is_refused(folder: Path) -> None:
    (folder / "w.bin").unlink()
    os.link(folder.parent / "secret", folder / "w.bin")
    with pytest.raises(ModelError, match="has 2 names on this disk"):
        open_model(write_external(folder))


def test_pipes_and_folders_are_no_data(folder: Path) -> None:
    os.mkfifo(folder / "pipe")
    with pytest.raises(ModelError, match="is not a file"):
        open_model(write_external(folder, "pipe"))
    (folder / "dir").mkdir()
    with pytest.raises(ModelError, match="is not a file"):
        open_model(write_external(folder, "dir"))


def test_missing_data_is_named(folder: Path) -> None:
    with pytest.raises(ModelError, match=r"its data file 'gone\.bin' is missing") as caught:
        open_model(write_external(folder, "gone.bin"))
    assert "copy the data file" in caught.value.hint


@pytest.mark.parametrize(
    ("entries", "says"),
    [
        ({"length": str(1 << 50)}, "its length is 1125899906842624"),
        ({"length": "8"}, "its length is 8"),
        ({"length": "-16"}, "its length is '-16'"),
        ({"offset": "4"}, r"it ends at byte 20 of 'w.bin' \(which has 16\)"),
        ({"offset": "9" * 30}, "its offset is"),
        ({"offset": "0x10"}, "its offset is '0x10'"),
        ({"__class__": "x"}, "it says '__class__'"),
    ],
)
def test_places_outside_the_file_are_refused(
    folder: Path, entries: dict[str, str], says: str
) -> None:
    with pytest.raises(ModelError, match=f"cannot read tensor 'w' .*{says}"):
        open_model(write_external(folder, **entries))


def test_weights_above_two_gibibytes_stay_outside(folder: Path) -> None:
    rows = (1 << 31) // 4096 + 1
    model = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["" : 17]> g (int64[1] x) => (uint8[1, 4096] y) '
        "{ y = Gather(w, x) }"
    )
    tensor = onnx.TensorProto(
        name="w", data_type=2, dims=[rows, 4096], data_location=onnx.TensorProto.EXTERNAL
    )
    tensor.external_data.add(key="location", value="big.bin")
    model.graph.initializer.append(tensor)
    (folder / "big.onnx").write_bytes(model.SerializeToString())
    with (folder / "big.bin").open("wb") as stream:
        stream.truncate(rows * 4096)  # sparse: takes no room
    opened = open_model(folder / "big.onnx")
    assert opened.source.initializer_bytes == rows * 4096 > 1 << 31
    assert opened.source.bytes > 1 << 31


def test_external_weights_come_into_one_file_when_they_fit(
    folder: Path, tmp_path: Path
) -> None:
    opened = open_model(write_external(folder))
    [path] = save_model(opened.ir, tmp_path, "one")
    assert not onnx.load(path).graph.initializer[0].external_data
    np.testing.assert_array_equal(
        onnx.numpy_helper.to_array(onnx.load(path).graph.initializer[0]), ARRAY
    )
