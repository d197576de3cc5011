"""A source is told by what is in it, and so is the toolchain that it needs."""

from __future__ import annotations

import gzip
import json
import zipfile
import zlib
from pathlib import Path

import pytest

from edgesdk.errors import ModelError
from edgesdk.importers.detect import detect_format
from edgesdk.importers.importing import import_model
from edgesdk.importers.toolchains import Toolchains

PICKLE = b"\x80\x04\x95\x10\x00\x00\x00\x00\x00\x00\x00\x8c"
FAR = PICKLE + b"0" * (3 << 20)


@pytest.mark.parametrize(
    ("content", "code", "toolchain"),
    [
        (PICKLE + b"sklearn.svm", "pickle", "sklearn"),
        (PICKLE + b"xgboost.sklearn", "pickle", "boosting"),
        (FAR + b"lightgbm.sklearn", "pickle", "boosting"),
        (FAR[: (1 << 20) - 4] + b"xgboost.core", "pickle", "boosting"),
        (zlib.compress(PICKLE + b"sklearn.svm"), "pickle", "sklearn"),
        (zlib.compress(FAR + b"xgboost.core"), "pickle", "boosting"),
        (gzip.compress(PICKLE + b"lightgbm.basic", mtime=0), "pickle", "boosting"),
        (zlib.compress(PICKLE + b"sklearn.svm")[:-9], "pickle", "sklearn"),
        (b"tree\nversion=v4\nnum_class=1\n", "lightgbm", "boosting"),
        (b'{"learner":{"attributes":{}}}', "xgboost", "boosting"),
        (b"\x89HDF\r\n\x1a\n rest", "keras-h5", "tensorflow"),
    ],
    ids=lambda value: value if isinstance(value, str) else "content",
)
def test_files_are_told_by_content(
    tmp_path: Path, content: bytes, code: str, toolchain: str
) -> None:
    path = tmp_path / "model.onnx"  # its name says nothing
    path.write_bytes(content)
    found = detect_format(path)
    assert found is not None
    assert (found.code, found.toolchain) == (code, toolchain)


@pytest.mark.parametrize(
    ("names", "code"),
    [
        (["m/data.pkl", "m/data/0"], "torch-checkpoint"),
        (["m/data.pkl", "m/constants.pkl"], "torchscript"),
        (["m/archive_format", "m/models/model.json"], "torch-export"),
        (["config.json", "metadata.json", "model.weights.h5"], "keras"),
    ],
)
def test_archives_are_told_by_their_names(tmp_path: Path, names: list[str], code: str) -> None:
    with zipfile.ZipFile(tmp_path / "model", "w") as archive:
        for name in names:
            archive.writestr(name, "x")
    found = detect_format(tmp_path / "model")
    assert found is not None
    assert found.code == code


@pytest.mark.parametrize(
    ("module", "toolchain"), [("sklearn.svm", "sklearn"), ("xgboost.sklearn", "boosting")]
)
def test_a_skops_archive_says_which_package_it_is_of(
    tmp_path: Path, module: str, toolchain: str
) -> None:
    with zipfile.ZipFile(tmp_path / "m.skops", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("1.npy", "x")
        archive.writestr("schema.json", json.dumps({"__module__": module, "__class__": "A"}))
    found = detect_format(tmp_path / "m.skops")
    assert found is not None
    assert (found.code, found.toolchain) == ("skops", toolchain)


def test_a_damaged_archive_is_left_to_whoever_opens_it(tmp_path: Path) -> None:
    path = tmp_path / "m.skops"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("schema.json", "a" * 10_000)
    data = bytearray(path.read_bytes())
    data[45:60] = b"\xff" * 15
    path.write_bytes(data)
    found = detect_format(path)
    assert found is not None
    assert found.toolchain == "sklearn"


def test_a_saved_model_is_a_folder_and_others_are_none(tmp_path: Path) -> None:
    assert detect_format(tmp_path) is None
    (tmp_path / "saved_model.pb").write_bytes(b"x")
    found = detect_format(tmp_path)
    assert found is not None
    assert found.code == "saved-model"
    (tmp_path / "words").write_text("some words in a file")
    assert detect_format(tmp_path / "words") is None


@pytest.mark.parametrize(
    ("suffix", "members"),
    [
        (".keras", {"config.json": "{}" * 500, "model.weights.h5": "x"}),
        (".pt", {"m/data.pkl": "a" * 5000, "m/version": "3"}),
    ],
)
@pytest.mark.parametrize("harm", ["damaged", "encrypted", "unknown compression"])
def test_a_spoilt_archive_is_refused_without_its_framework(
    tmp_path: Path, suffix: str, members: dict[str, str], harm: str
) -> None:
    path = tmp_path / f"model{suffix}"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in members.items():
            archive.writestr(name, text)
        first = archive.infolist()[0]
    data = bytearray(path.read_bytes())
    start = first.header_offset + 30 + len(first.filename)
    central = data.index(b"PK\x01\x02")
    if harm == "damaged":
        data[start : start + 8] = b"\xff" * 8
    elif harm == "encrypted":
        data[6] |= 1
        data[central + 8] |= 1
    else:
        data[8] = data[central + 10] = 97
    path.write_bytes(data)
    with pytest.raises(ModelError) as caught:
        import_model(path, toolchains=Toolchains(tmp_path / "t"), imports=tmp_path / "i")
    assert caught.value.hint
    assert not (tmp_path / "t").exists()
