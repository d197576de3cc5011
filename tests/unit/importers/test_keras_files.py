"""Keras archives are read and judged without Keras: what would run code never reaches it."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import pytest

from edgesdk.importers.frameworks.keras_files import (
    check_classes,
    read_keras,
    without_old_words,
)
from edgesdk.importers.job import CannotExport

DENSE = {
    "module": "keras.layers",
    "class_name": "Dense",
    "config": {"name": "head", "units": 2, "activation": "relu"},
    "registered_name": None,
}
LAMBDA = {
    "module": "keras.layers",
    "class_name": "Lambda",
    "config": {
        "name": "plus",
        "function": {"class_name": "__lambda__", "config": {"code": "4wEA"}},
    },
    "registered_name": None,
}


def model(*layers: Any) -> dict[str, Any]:
    return {
        "module": "keras",
        "class_name": "Sequential",
        "config": {"name": "net", "layers": list(layers)},
        "registered_name": None,
    }


def write(folder: Path, members: dict[str, bytes | str]) -> Path:
    path = folder / "net.keras"
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return path


def archive_of(folder: Path, *layers: Any, version: str = "3.9.0") -> Path:
    return write(
        folder,
        {
            "config.json": json.dumps(model(*layers)),
            "metadata.json": json.dumps({"keras_version": version}),
            "model.weights.h5": b"\x89HDF",
        },
    )


def refusal(path: Path, *, trust: bool = False) -> CannotExport:
    with pytest.raises(CannotExport) as caught:
        check_classes(path.name, read_keras(path), trust=trust)
    assert caught.value.hint
    return caught.value


def test_an_ordinary_model_passes_and_says_who_wrote_it(tmp_path: Path) -> None:
    file = read_keras(archive_of(tmp_path, DENSE))
    assert file.version == "3.9.0"
    assert check_classes("net.keras", file, trust=False) == ()


@pytest.mark.parametrize(
    ("kind", "why"),
    [
        ("Lambda", "holds Python code"),
        ("TFSMLayer", "loads a SavedModel"),
        ("TorchModuleWrapper", "holds a pickle"),
        ("JaxLayer", "another program"),
    ],
)
def test_a_layer_that_runs_code_is_refused_by_its_name(
    kind: str, why: str, tmp_path: Path
) -> None:
    layer = {"module": "keras.layers", "class_name": kind, "config": {"name": "odd_one"}}
    said = refusal(archive_of(tmp_path, DENSE, layer))
    assert f"{kind} 'odd_one'" in str(said)
    assert why in str(said)
    assert "--trust" in said.hint
    assert said.facts["layer"] == "odd_one"


def test_trust_lets_a_lambda_pass(tmp_path: Path) -> None:
    file = read_keras(archive_of(tmp_path, LAMBDA))
    assert check_classes("net.keras", file, trust=True) == ()


def test_code_is_found_however_deep_it_lies(tmp_path: Path) -> None:
    inner: Any = LAMBDA
    for _ in range(40):
        inner = model(inner)
    assert "plus" in str(refusal(archive_of(tmp_path, inner)))


def test_a_layer_of_words_is_refused_even_where_trusted(tmp_path: Path) -> None:
    layer = {
        "module": "keras.layers",
        "class_name": "StringLookup",
        "config": {"name": "words", "vocabulary": "/etc/passwd"},
    }
    said = refusal(archive_of(tmp_path, layer), trust=True)
    assert "StringLookup 'words'" in str(said)
    assert "in front of the model" in said.hint


@pytest.mark.parametrize(
    ("module", "kind", "named"),
    [
        ("os", "system", "os.system"),
        ("keras.utils", "get_file", "keras.utils.get_file"),
        ("keras.src.utils.file_utils", "get_file", "keras.src.utils.file_utils.get_file"),
        ("keras.config", "enable_unsafe_deserialization", "keras.config.enable_unsafe"),
        ("keras.saving", "load_model", "keras.saving.load_model"),
        ("kerasx.layers", "Dense", "kerasx.layers.Dense"),
        ("builtins", "eval", "builtins.eval"),
    ],
)
def test_what_is_no_modelling_class_of_keras_is_named(
    module: str, kind: str, named: str, tmp_path: Path
) -> None:
    odd = {"module": module, "class_name": kind, "config": {"name": "x"}}
    file = read_keras(
        archive_of(tmp_path, DENSE | {"config": {"name": "d", "activation": odd}})
    )
    (found,) = check_classes("net.keras", file, trust=False)
    assert found.startswith(named)


def test_a_class_of_the_users_is_named_as_registered(tmp_path: Path) -> None:
    own = {
        "module": None,
        "class_name": "Twice",
        "config": {"name": "tw"},
        "registered_name": "mine>Twice",
    }
    legacy = {"class_name": "mine>Thrice", "config": {"name": "th"}}
    file = read_keras(archive_of(tmp_path, own, legacy))
    assert check_classes("net.keras", file, trust=False) == ("mine.Twice", "mine.Thrice")


def test_words_of_keras_2_that_change_nothing_are_left_out() -> None:
    old = {"layers": [{"config": {"units": 3, "time_major": False, "key_shape": [None, 8]}}]}
    assert json.loads(without_old_words(old)) == {"layers": [{"config": {"units": 3}}]}
    assert json.loads(without_old_words({"time_major": True})) == {"time_major": True}


@pytest.mark.parametrize("name", ["../evil.h5", "/etc/cron.d/x", "a/../../b", "..\\b", "C:x"])
def test_a_member_that_leaves_the_archive_is_refused(name: str, tmp_path: Path) -> None:
    path = write(tmp_path, {"config.json": json.dumps(model(DENSE)), name: b"x"})
    assert "points out of it" in str(refusal(path))


def test_a_member_that_is_there_twice_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "net.keras"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("config.json", json.dumps(model(DENSE)))
        with pytest.warns(UserWarning, match="Duplicate"):
            archive.writestr("config.json", json.dumps(model(LAMBDA)))
    assert "twice" in str(refusal(path))


def test_a_bomb_is_refused_unread(tmp_path: Path) -> None:
    path = tmp_path / "net.keras"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("config.json", json.dumps(model(DENSE)))
        archive.writestr("model.weights.h5", bytes(80 * 2**20))
    assert "unpacks to 83886080 bytes" in str(refusal(path))


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"", "as a Keras archive"),
        (b"PK\x03\x04 and then nothing", "as a Keras archive"),
        ("no config", "no config.json"),
        ("no weights", "it holds no weights"),
        ("broken", "cannot read the description"),
        ("list", "no JSON object"),
        ("deep", "cannot read the description"),
    ],
)
def test_what_is_damaged_says_what_to_do(
    data: bytes | str, problem: str, tmp_path: Path
) -> None:
    config = {
        "broken": '{"module": ',
        "list": "[]",
        "deep": "[" * 100_000,
        "no weights": json.dumps(model(DENSE)),
    }
    if isinstance(data, bytes):
        path = tmp_path / "net.keras"
        path.write_bytes(data)
    elif data == "no config":
        path = write(tmp_path, {"model.weights.h5": b"x"})
    else:
        weights = {} if data == "no weights" else {"model.weights.h5": b"x"}
        path = write(tmp_path, {"config.json": config[data], **weights})
    assert problem in str(refusal(path))


def outcome(path: Path) -> str:
    """What is said of a file, "" where it passes."""
    try:
        check_classes(path.name, read_keras(path), trust=False)
    except CannotExport as error:
        return str(error)
    return ""


def test_every_truncation_of_an_archive_is_refused(tmp_path: Path) -> None:
    whole = archive_of(tmp_path, DENSE).read_bytes()
    path = tmp_path / "cut.keras"
    for length in range(0, len(whole), 7):
        path.write_bytes(whole[:length])
        assert "cut.keras" in outcome(path), length


def test_changed_bytes_never_do_worse_than_a_refusal(tmp_path: Path) -> None:
    whole = archive_of(tmp_path, DENSE).read_bytes()
    path = tmp_path / "odd.keras"
    refused = 0
    for at in range(len(whole)):
        changed = bytearray(whole)
        changed[at] ^= 0x41
        path.write_bytes(changed)
        said = outcome(path)
        assert not said or "odd.keras" in said
        refused += bool(said)
    assert refused > len(whole) // 3  # names, lengths and checksums are most of it
