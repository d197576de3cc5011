"""What a stopped quantization leaves, and that nothing but the same one takes it up."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import edgesdk
from edgesdk.quantize.state import State
from edgesdk.quantize.values import Quantized
from tests.unit.quantize.floats import named, samples, shipped
from tests.unit.quantize.modes import normal

Sample = dict[str, np.ndarray]


def test_what_was_written_is_there_for_the_same_key(tmp_path: Path) -> None:
    one = State(tmp_path, "model", "data")
    one.write("drops", {"a": 0.5, "b": 1e30})
    one.write_arrays("ranges", {"open:/a/b:c:rows": np.arange(3.0), "n": np.array(4)})
    same = State(tmp_path, "model", "data")
    assert same.read("drops") == {"a": 0.5, "b": 1e30}
    arrays = same.read_arrays("ranges")
    assert set(arrays) == {"open:/a/b:c:rows", "n"}
    assert arrays["open:/a/b:c:rows"].tolist() == [0.0, 1.0, 2.0]


@pytest.mark.parametrize("key", [("model",), ("model", "other"), ("modeldata",), ()])
def test_another_key_finds_nothing(tmp_path: Path, key: tuple[str, ...]) -> None:
    State(tmp_path, "model", "data").write("drops", {"a": 1.0})
    assert State(tmp_path, *key).read("drops") == {}


def test_another_release_finds_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    State(tmp_path, "k").write("drops", {"a": 1.0})
    monkeypatch.setattr(edgesdk, "__version__", "99.0")
    assert State(tmp_path, "k").read("drops") == {}


def test_a_part_is_apart_and_is_forgotten_with_the_whole(tmp_path: Path) -> None:
    whole = State(tmp_path, "k")
    for name, value in (("int8", 1.0), ("int16x8", 2.0)):
        whole.part(name).write("drops", {"": value})
    assert whole.read("drops") == {}
    assert whole.part("int8").read("drops") == {"": 1.0}
    assert whole.part("int16x8").read("drops") == {"": 2.0}
    whole.clear()
    assert whole.part("int8").read("drops") == {}
    assert not list(tmp_path.iterdir())


def test_without_a_folder_nothing_is_kept() -> None:
    state = State(None, "k")
    state.write("drops", {"a": 1.0})
    state.write_arrays("ranges", {"a": np.zeros(3)})
    assert state.read("drops") == {}
    assert state.read_arrays("ranges") == {}
    assert not state.due(-1.0)
    assert state.part("p").folder is None
    state.clear()


@pytest.mark.parametrize("text", ["", "{", "[1]", "7", "\x00", "{" * 5000, "[" * 100_000])
def test_a_damaged_record_is_as_good_as_none(tmp_path: Path, text: str) -> None:
    state = State(tmp_path, "k")
    state.write("drops", {"a": 1.0})
    assert state.folder is not None
    (state.folder / "drops.json").write_text(text)
    assert state.read("drops") == {}


@pytest.mark.parametrize("cut", [0, 1, 30, 200])
def test_damaged_arrays_are_as_good_as_none(tmp_path: Path, cut: int) -> None:
    state = State(tmp_path, "k")
    state.write_arrays("ranges", {"a": np.arange(100.0)})
    assert state.folder is not None
    path = state.folder / "ranges.npz"
    path.write_bytes(path.read_bytes()[:cut])
    assert state.read_arrays("ranges") == {}


def test_objects_are_not_unpickled(tmp_path: Path) -> None:
    state = State(tmp_path, "k")
    state.write_arrays("ranges", {"a": np.zeros(1)})
    assert state.folder is not None
    np.savez(state.folder / "ranges.npz", a=np.array([{"x": 1}], dtype=object))
    assert state.read_arrays("ranges") == {}


def test_a_folder_that_cannot_be_written_costs_only_the_way_back(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    state = State(tmp_path / "file", "k")
    state.write("drops", {"a": 1.0})
    assert state.read("drops") == {}


def test_it_is_due_only_now_and_then(tmp_path: Path) -> None:
    state = State(tmp_path, "k")
    assert not state.due(3600)
    assert state.due(0)
    assert not state.due(3600)


def test_a_slow_disk_is_written_to_a_tenth_of_the_time_at_most(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])

    class Slow(dict[str, np.ndarray]):
        """Arrays that take two seconds."""

        def values(self) -> Any:
            now[0] += 2.0
            return super().values()

    state = State(tmp_path, "k")
    now[0] += 5.0
    assert state.due()
    state.write_arrays("ranges", Slow(a=np.zeros(1)))
    now[0] += 19.0
    assert not state.due(), "from the end of the write, ten times what it took"
    now[0] += 1.0
    assert state.due()


def test_what_could_not_be_read_again_is_not_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = State(tmp_path, "k")
    state.write_arrays("ranges", {"a": np.zeros(10)})
    monkeypatch.setattr("edgesdk.quantize.state._MOST_BYTES", 1000)
    state.write_arrays("ranges", {"a": np.zeros(1000)})
    state.write("drops", {"a" * 2000: 1.0})
    assert state.folder is not None
    assert [path.name for path in state.folder.iterdir()] == ["ranges.npz"]
    assert state.read_arrays("ranges")["a"].shape == (10,)


@pytest.mark.parametrize(
    ("what", "value"),
    [
        ("package_versions", lambda names: {"onnxruntime": "99.0"}),
        ("cpu_flags", lambda: {"avx_of_tomorrow"}),
    ],
)
def test_other_packages_or_another_processor_find_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str, value: Any
) -> None:
    State(tmp_path, "k").write("drops", {"a": 1.0})
    monkeypatch.setattr(f"edgesdk.quantize.state.{what}", value)
    assert State(tmp_path, "k").read("drops") == {}


# --- through the library ---------------------------------------------------------------------

MODEL = named(
    "n (float[1, 3, 8, 8] x) => (float[1, 4] y)"
    "{ c = Conv (x, w) r = Relu (c) p = GlobalAveragePool (r) q = Conv (p, v)"
    "  y = Flatten (q) }",
    {"w": normal(4, 3, 3, 3), "v": normal(4, 4, 1, 1)},
)


class Stops(Exception):
    """What stops a run here."""


def quantized(folder: Path, data: list[Sample], **more: Any) -> Quantized:
    return edgesdk.quantize(
        MODEL, data, scheme=shipped("onnxruntime-cpu"), state_dir=folder, means=(), **more
    )


def leave_notes(folder: Path, data: list[Sample], **more: Any) -> None:
    """Stop a run in its search, so that its notes stay."""

    def stop(progress: Any) -> None:
        if progress.step == "probe nodes":
            raise Stops

    with pytest.raises(Stops):
        quantized(folder, data, max_drop=1e-7, on_progress=stop, **more)


def test_a_finished_run_leaves_nothing(tmp_path: Path) -> None:
    quantized(tmp_path, samples(MODEL, 16))
    assert not list(tmp_path.iterdir())


def test_a_run_goes_on_from_its_own_notes_only(tmp_path: Path) -> None:
    leave_notes(tmp_path, samples(MODEL, 16))
    (notes,) = tmp_path.iterdir()
    leave_notes(tmp_path, samples(MODEL, 16))
    assert list(tmp_path.iterdir()) == [notes], "the same model and data"
    leave_notes(tmp_path, samples(MODEL, 16, seed=7))
    assert len(list(tmp_path.iterdir())) == 2, "other data, as many"


def test_the_order_of_names_does_not_matter(tmp_path: Path) -> None:
    leave_notes(tmp_path, samples(MODEL, 16), keep_float=["Softmax", "y"])
    (notes,) = tmp_path.iterdir()
    leave_notes(tmp_path, samples(MODEL, 16), keep_float={"y", "Softmax"})
    assert list(tmp_path.iterdir()) == [notes]


def test_a_score_of_the_callers_might_have_changed_so_nothing_is_kept(tmp_path: Path) -> None:
    data = samples(MODEL, 16)
    leave_notes(tmp_path, data, score=lambda run: -float(np.abs(run(data[0])["y"]).sum()))
    assert not list(tmp_path.iterdir())


def test_what_nobody_came_back_to_is_forgotten(tmp_path: Path) -> None:
    old, new = State(tmp_path, "old"), State(tmp_path, "new")
    for state in (old, new):
        state.write("drops", {"a": 1.0})
    assert old.folder is not None
    long_ago = time.time() - 30 * 24 * 3600
    os.utime(old.folder, (long_ago, long_ago))
    State(tmp_path, "another")
    assert old.read("drops") == {}
    assert new.read("drops") == {"a": 1.0}
