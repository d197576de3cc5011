"""What of two answers is compared, and what is told of those that cannot be."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from edgesdk.build.checks import kernel_spread, make_checks, tell_parts
from edgesdk.bundle.writer import BundleWriter

INF, NAN = np.inf, np.nan


class Answers:
    """A model that always gives the same."""

    def __init__(self, *values: float) -> None:
        self.values = np.array(values, np.float32)

    def run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Give them as output y."""
        return {"y": self.values}


@pytest.mark.parametrize(
    ("chain", "beyond"),
    [
        ((-INF, NAN, 1.0, 2.0), 0.0),
        ((-INF, 0.0, 1.0, 2.0), 0.25),
        ((INF, NAN, NAN, 2.0), 0.5),
    ],
)
def test_equal_infinities_and_no_numbers_are_no_difference(
    chain: tuple[float, ...], beyond: float
) -> None:
    as_built: dict[str, Any] = {"findings": []}
    whole = Answers(-INF, NAN, 1.0, 2.0)
    tell_parts(as_built, [{}], Answers(*chain), whole, {}, precision="fp32")
    assert as_built["against_whole"][0]["beyond"] == beyond
    assert [each["code"] for each in as_built["findings"]] == ["parts-differ"] * (beyond > 0)


def test_answers_of_another_shape_are_told() -> None:
    as_built: dict[str, Any] = {"findings": []}
    tell_parts(as_built, [{}], Answers(1.0), Answers(1.0, 2.0), {}, precision="fp32")
    (finding,) = as_built["findings"]
    assert finding["code"] == "parts-differ"
    assert "has the shape [1], that of the graph in one piece [2]" in finding["message"]


def test_a_spread_is_a_number_though_one_kernel_overflows() -> None:
    assert kernel_spread([{}], Answers(3e38, 1.0), Answers(INF, 1.5)) == {"y": 1.0}
    assert kernel_spread([{}], Answers(NAN), Answers(1.0)) == {"y": 0.0}


def test_answers_of_two_shapes_give_no_spread() -> None:
    assert kernel_spread([{}], Answers(1.0, 2.0), Answers(1.0, 2.0, 3.0)) == {}


@pytest.mark.parametrize(
    ("spread", "allowed"), [(0.0, 0.5), (0.25, 0.5), (2.0, 2.0)], ids=["none", "less", "more"]
)
def test_what_two_kernel_sets_differ_by_is_allowed_beyond_a_step(
    spread: float, allowed: float, tmp_path: Path
) -> None:
    with BundleWriter(tmp_path / "bundle") as writer:
        made = make_checks(
            [{"x": np.zeros(2, np.float32)}],
            writer,
            part=Answers(1.0, 2.0),
            reference=None,
            precision="int8",
            steps={"y": 0.5},
            spread={"y": spread},
            limit=1,
        )
    (tolerance,) = made.records[0]["tolerance"]
    assert tolerance["abs"] == pytest.approx(allowed, rel=1e-4)


class Echo:
    """A model that gives what it is given, as output y."""

    def run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Give input x."""
        return {"y": inputs["x"]}


@pytest.mark.parametrize("lost", [0, 1, 2])
def test_one_vector_that_is_not_a_number_is_told_wherever_it_comes(
    lost: int, tmp_path: Path
) -> None:
    vectors = [{"x": np.array([1.0, 2.0], np.float32)} for _ in range(3)]
    vectors[lost]["x"][1] = NAN
    with BundleWriter(tmp_path / "bundle") as writer:
        made = make_checks(
            vectors,
            writer,
            part=Echo(),
            reference=Answers(1.0, 2.0),
            precision="int8",
            steps={},
            limit=3,
        )
    assert made.against_float == [
        {"output": "y", "cosine": None, "max_abs_error": None, "vectors": 3}
    ]


def test_what_neither_model_has_a_number_for_is_near(tmp_path: Path) -> None:
    vector = {"x": np.array([1.0, 2.0, NAN, -INF], np.float32)}
    with BundleWriter(tmp_path / "bundle") as writer:
        made = make_checks(
            [vector],
            writer,
            part=Echo(),
            reference=Answers(1.0, 2.5, NAN, -INF),
            precision="int8",
            steps={},
            limit=1,
        )
    (record,) = made.against_float
    assert record["cosine"] == pytest.approx(0.99655, abs=1e-4)
    assert record["max_abs_error"] == 0.5


def test_answers_count_among_the_bytes_of_check_vectors(tmp_path: Path) -> None:
    def large(inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        return {"y": np.full(300_000, inputs["x"][0], np.float32)}

    model = SimpleNamespace(run=large)
    vectors = [{"x": np.array([1.0], np.float32)} for _ in range(4)]
    with BundleWriter(tmp_path / "bundle") as writer:
        made = make_checks(
            vectors, writer, part=model, reference=model, precision="fp32", steps={}, limit=4
        )
    # each has 2.4 MB of answers, and 4 MiB may be kept
    assert [each["blob"]["bytes"] for each in made.records] == [2_400_004]
