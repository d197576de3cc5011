"""From a source to a kept, proven ONNX file, whatever the exporter does."""

from __future__ import annotations

import json
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from edgesdk.errors import ModelError, OutputError, ProofMismatch, ToolchainError
from edgesdk.importers import importing
from edgesdk.importers.child import ask_exporter
from edgesdk.importers.importing import import_model, open_imported
from edgesdk.importers.job import Example, Exported
from edgesdk.importers.prove import compare_arrays, prove_export
from edgesdk.importers.toolchains import Toolchain, Toolchains
from tests.unit.importers.conftest import Told


def test_an_import_is_proven_named_and_kept(told: Told, tmp_path: Path) -> None:
    made = told("fine")
    assert not made.known
    assert made.path.name == "word.onnx"
    assert sorted(each.name for each in made.path.parent.iterdir()) == [
        "origin.json",
        "word.onnx",
    ]
    assert made.origin.examples == 2
    assert made.origin.max_abs_error == 0
    assert made.origin.versions == {"told": "1.0"}
    assert made.origin.trusted
    opened = open_imported(made)
    assert opened.source.name == "word"
    assert opened.source.origin == made.origin
    leftovers = [each.name for each in (tmp_path / "imports").iterdir()]
    assert leftovers == [made.path.parent.name]


def test_the_same_source_is_imported_once(told: Told, monkeypatch: pytest.MonkeyPatch) -> None:
    first = told("fine")
    monkeypatch.setattr(importing, "ask_exporter", None)  # calling it would fail
    again = told("fine")
    assert again.known
    assert (again.path, again.origin) == (first.path, first.origin)


def test_another_source_or_another_wish_is_another_import(told: Told) -> None:
    paths = {
        told("fine").path,
        told("fine again").path,
        told("fine", opset=15).path,
        told("fine", shapes={"x": (1, None)}).path,
        told("fine", dynamic=("x",)).path,
    }
    assert len(paths) == 5


def test_an_import_is_named_for_its_own_file(told: Told) -> None:
    assert told("fine", name="alpha.told").path.name == "alpha.onnx"
    assert told("fine", name="beta.told").path.name == "beta.onnx"


def test_a_source_that_changes_meanwhile_is_not_kept(told: Told, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="it changed while it was imported"):
        told("rewritten")
    assert list((tmp_path / "imports").iterdir()) == []


def test_a_kept_file_that_was_altered_is_made_anew(told: Told) -> None:
    made = told("fine")
    before = made.path.read_bytes()
    made.path.write_bytes(before + b"\x00")
    again = told("fine")
    assert not again.known
    assert again.path.read_bytes() == before


def test_what_is_kept_and_broken_is_made_anew(told: Told) -> None:
    made = told("fine")
    (made.path.parent / "origin.json").write_text("{")
    again = told("fine")
    assert not again.known
    assert json.loads((again.path.parent / "origin.json").read_text())["model"] == "word.onnx"


def test_notes_of_the_exporter_reach_the_user(told: Told) -> None:
    notes: list[str] = []
    for _ in range(2):  # each time, and not only when it is made
        told("noted", shapes={"x": (1, None)}, notes=notes)
    assert notes == ["shapes {'x': (1, None)}"] * 2


def test_what_a_framework_prints_is_not_taken_for_an_answer(told: Told) -> None:
    assert told("noise").origin.examples == 2


def test_an_exporter_that_cannot_says_so_in_its_own_words(told: Told) -> None:
    with pytest.raises(ModelError, match="cannot import word: told so") as caught:
        told("cannot because")
    assert caught.value.hint == "tell it else"
    assert caught.value.facts["why"] == "because"
    assert caught.value.facts["path"].endswith("word.told")


def test_what_needs_no_framework_is_refused_before_one_is_there(
    told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Toolchains, "make", None)  # calling it would fail
    with pytest.raises(ModelError, match="refused early") as caught:
        told("early")
    assert caught.value.hint == "no framework"
    assert caught.value.facts["path"].endswith("word.told")


def test_what_an_exporter_leaves_running_does_not_hold_us_up(told: Told) -> None:
    began = time.monotonic()
    assert told("fork").origin.examples == 2
    assert time.monotonic() - began < 60


def test_a_toolchain_that_does_not_start_is_an_error_that_says_how_to_make_it_anew(
    told: Told, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(Toolchain, "interpreter", tmp_path / "none")
    with pytest.raises(ToolchainError, match="cannot start the toolchain told") as caught:
        told("fine")
    assert "edgesdk toolchains make told --again" in caught.value.hint


def test_an_import_without_an_example_is_not_taken(told: Told) -> None:
    with pytest.raises(ProofMismatch, match="its exporter gave no example"):
        told("unproven")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("bug", "ValueError: never thought of it"),
        ("exit 3", "it ended with code 3"),
        ("exit 0", "it ended with code 0"),
        ("die", "it died of SIGSEGV"),
        ("gone", "makes no sense: 'made.onnx' is no file"),
        ("linked", "makes no sense: 'made.onnx' is no file"),
    ],
)
def test_an_exporter_that_fails_is_an_error_that_says_how(
    told: Told, text: str, says: str, tmp_path: Path
) -> None:
    with pytest.raises(ToolchainError, match=says):
        told(text)
    assert list((tmp_path / "imports").iterdir()) == []


def test_an_exporter_that_hangs_is_ended(told: Told, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importing, "ask_exporter", partial(ask_exporter, wall_s=2.0))
    with pytest.raises(ToolchainError, match="it took over 2 s"):
        told("hang")


def test_an_exporter_that_eats_memory_is_ended(
    told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importing, "ask_exporter", partial(ask_exporter, memory_bytes=1 << 30))
    with pytest.raises(ToolchainError, match="it ran out of memory"):
        told("eat")


def test_numbers_that_differ_are_an_error_that_names_the_first_layer(told: Told) -> None:
    with pytest.raises(
        ProofMismatch, match="the first layer that differs is 'scale'"
    ) as caught:
        told("wrong")
    assert caught.value.facts["layer"] == "scale"
    assert "output 'y'" in str(caught.value)


def test_a_source_that_is_none_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "words.txt"
    path.write_text("just words, many of them")
    with pytest.raises(ModelError, match="no importer takes it"):
        import_model(path, toolchains=Toolchains(tmp_path / "t"), imports=tmp_path / "i")


def test_a_folder_that_cannot_be_written_is_an_error(told: Told, tmp_path: Path) -> None:
    (tmp_path / "imports").write_text("a file")
    with pytest.raises(OutputError, match=r"cannot write into .*imports"):
        told("fine")


@pytest.mark.parametrize(
    ("expected", "got", "why"),
    [
        (np.float32([1, 2]), np.float32([1, 2.00001]), ""),
        (np.float32([1, np.nan]), np.float32([1, np.nan]), ""),
        (np.float32([1, np.nan]), np.float32([1, 2]), "NaN or infinity is in other places"),
        (np.float32([1, np.inf]), np.float32([1, -np.inf]), "NaN or infinity"),
        (np.float32([1, 2]), np.float32([[1, 2]]), "its shape is"),
        (np.int64([1, 2]), np.int64([1, 3]), "1 of 2 values differ"),
        (np.array(["a", "b"]), np.array(["a", "b"]), ""),
        (np.array(["a", "b"]), np.array(["a", "c"]), "1 of 2 values differ"),
        (np.float32([]), np.float32([]), ""),
        (np.float32([1]), np.float64([1]), "its type is float64 (expected float32)"),
        (np.float16([1, -2]), np.float16([1, -2.002]), ""),
        (np.array(["a"]), np.array(["a"], dtype=object), ""),
        (np.float32([1]), [{"a": 1}], "it is no tensor but a list"),
    ],
)
def test_arrays_are_compared_by_what_they_are(
    expected: np.ndarray, got: object, why: str
) -> None:
    seen = compare_arrays(expected, got, at="y")
    assert seen.holds is (why == "")
    assert why in seen.why


def test_the_error_is_over_the_largest_value(tmp_path: Path) -> None:
    seen = compare_arrays(np.float32([1000, 1]), np.float32([1000, 1.05]), at="y")
    assert seen.max_rel == pytest.approx(5e-5, rel=1e-3)
    assert seen.max_abs == pytest.approx(0.05, rel=1e-3)
    assert seen.holds


def test_a_graph_that_onnxruntime_refuses_is_no_proof(tmp_path: Path) -> None:
    (tmp_path / "bad.onnx").write_bytes(b"\x08\x01nonsense")
    example = Example(inputs={"x": np.float32([1])}, outputs={"y": np.float32([1])})
    exported = Exported(model=tmp_path / "bad.onnx", opset=17, versions={}, examples=(example,))
    with pytest.raises(ProofMismatch, match="onnxruntime does not run"):
        prove_export(exported, name="bad")
