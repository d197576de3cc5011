"""Estimators in files: what is refused before, and what right after, it is loaded."""

from __future__ import annotations

import copy
import pickle  # noqa: TID251  (a pickle is written here, and never loaded)
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgesdk.importers.frameworks._sklearn_examples import choose_rows
from edgesdk.importers.frameworks._sklearn_files import check_trees
from edgesdk.importers.frameworks.sklearn_model import export
from edgesdk.importers.job import CannotExport, Job

RAN: list[str] = []


def run_me() -> None:
    RAN.append("boom")


class Bomb:
    """Unpickled, it would call `run_me`."""

    def __reduce__(self) -> tuple[Any, ...]:
        return run_me, ()


def job(path: Path, tmp_path: Path, kind: str = "pickle") -> Job:
    out = tmp_path / "out"
    out.mkdir()
    return Job(source=path, kind=kind, name=path.stem, out=out)


def test_a_pickle_is_refused_unread_and_what_it_names_is_named(tmp_path: Path) -> None:
    path = tmp_path / "model.pkl"
    path.write_bytes(pickle.dumps([np.float64(1), Bomb()]))
    with pytest.raises(CannotExport, match="loading one runs what it names") as caught:
        export(job(path, tmp_path))
    assert f"{__name__}.run_me belong to no estimator" in str(caught.value)
    assert "--trust" in caught.value.hint
    assert "skops" in caught.value.hint
    assert f"{__name__}.run_me" in caught.value.facts["globals"]
    assert RAN == []


@pytest.fixture(scope="module")
def forest() -> Any:
    ensemble = pytest.importorskip("sklearn.ensemble", reason="a development package")
    draw = np.random.default_rng(0)
    data = draw.standard_normal((80, 4)) * [1, 10, 100, 1000] + 5
    return ensemble.RandomForestClassifier(3, random_state=0).fit(data, data[:, 1] > 5)


def spoiled(forest: Any, field: str, value: int) -> Any:
    """Write a number into the first comparison of the second tree."""
    made = copy.deepcopy(forest)
    tree = made.estimators_[1].tree_
    state = tree.__getstate__()
    if field == "node_count":
        state["node_count"] = value
    else:
        state["nodes"] = state["nodes"].copy()
        state["nodes"][field][0] = value
    tree.__setstate__(state)
    return made


def test_trees_as_they_are_trained_are_taken(forest: Any) -> None:
    check_trees(forest, "forest")
    check_trees({"inside": [forest, None, "text", np.array([forest], object)]}, "forest")


@pytest.mark.parametrize(
    ("field", "value", "says"),
    [
        ("left_child", 10**6, "leads from a node to one that is not below it"),
        ("right_child", -7, "leads from a node to one that is not below it"),
        ("left_child", 0, "leads from a node to one that is not below it"),
        ("feature", 4, r"asks for feature 4 \(there are 4\)"),
        ("feature", -3, "asks for feature"),
        ("node_count", 10**9, "says it has 1000000000 nodes"),
        ("node_count", 0, "says it has 0 nodes"),
    ],
)
def test_trees_that_lead_outside_are_refused(
    forest: Any, field: str, value: int, says: str
) -> None:
    with pytest.raises(CannotExport, match=says):
        check_trees(spoiled(forest, field, value), "forest")


def test_trees_of_histograms_are_looked_at_too() -> None:
    ensemble = pytest.importorskip("sklearn.ensemble", reason="a development package")
    draw = np.random.default_rng(0)
    data = draw.standard_normal((80, 4))
    made = ensemble.HistGradientBoostingClassifier(max_iter=2, min_samples_leaf=5)
    made.fit(data, data[:, 1] > 0)
    check_trees(made, "histograms")
    for field, value, says in (
        ("left", 10**6, "leads from a node"),
        ("feature_idx", 9, "asks for feature 9"),
        ("is_categorical", 1, "a set of categories that is not there"),
    ):
        bad = copy.deepcopy(made)
        bad._predictors[1][0].nodes[field][0] = value
        with pytest.raises(CannotExport, match=says):
            check_trees(bad, "histograms")


def test_rows_lie_where_trees_compare_and_off_the_edges(forest: Any) -> None:
    def answer(rows: Any) -> list[Any]:
        return [forest.predict_proba(rows)]

    rows, left_out, drawn = choose_rows(forest, 4, 64, answer)
    again, *_ = choose_rows(forest, 4, 64, answer)
    assert rows.dtype == np.float32
    assert rows.shape == (64, 4)
    assert np.array_equal(rows, again)
    assert drawn >= 64 + left_out
    # both classes are met, and features lie where the trees compare them
    assert 8 < forest.predict(rows).sum() < 56
    assert 3 < np.median(rows[:, 1]) < 8


def test_rows_on_the_edge_of_a_step_are_left_out() -> None:
    def by_last_bits(rows: Any) -> list[Any]:
        """Answer by the last bits of one feature, where another is positive."""
        bits = (rows[:, 0].view(np.int32) >> 1) & 1
        return [np.where(rows[:, 1] > 0, bits, 0).astype(np.int64)]

    rows, left_out, drawn = choose_rows(object(), 2, 32, by_last_bits)
    assert len(rows) == 32
    assert left_out > 4
    assert drawn >= 32 + left_out
    steady = choose_rows(object(), 2, 32, lambda rows: [(rows[:, 0] > 0).astype(np.int64)])
    assert steady[1] == 0
