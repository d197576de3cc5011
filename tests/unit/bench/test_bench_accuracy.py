"""Check vectors are summed up by output, labelled data is scored on the device."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from edgesdk.bench.accuracy import accuracy_of, evaluate_on_device
from edgesdk.deploy.check import _compare
from edgesdk.deploy.values import OutputCheck, SelfCheck, VectorCheck
from edgesdk.errors import DataError
from edgesdk.progress import Progress


def output(name: str = "y", **fields: Any) -> OutputCheck:
    given: dict[str, Any] = {
        "name": name,
        "within": True,
        "max_abs_error": 0.0,
        "allowed": 0.1,
        "mismatches": 0,
        "elements": 10,
        "cosine": 1.0,
        **fields,
    }
    return OutputCheck(**given)


def checked(*vectors: tuple[OutputCheck, ...], passed: bool = True) -> SelfCheck:
    return SelfCheck(
        passed=passed,
        reused=False,
        vectors=tuple(VectorCheck(index=i, outputs=group) for i, group in enumerate(vectors)),
        runtimes=(),
        load_ms=None,
        cold_start_ms=None,
    )


def test_the_worst_vector_of_each_output_counts() -> None:
    check = checked(
        (output("y", max_abs_error=0.05), output("z")),
        (output("y", max_abs_error=0.2, within=False, mismatches=3), output("z")),
        passed=False,
    )
    host = accuracy_of(check).host_check
    assert host is not None
    assert (host.passed, host.vectors) == (False, 2)
    first, second = host.outputs
    assert (first.within, first.max_abs_error, first.mismatches, first.elements) == (
        False,
        0.2,
        3,
        20,
    )
    assert second.within


def test_an_error_that_is_no_number_stays_unknown() -> None:
    check = checked((output(max_abs_error=None),), (output(max_abs_error=0.1),))
    host = accuracy_of(check).host_check
    assert host is not None
    assert host.outputs[0].max_abs_error is None


def test_the_reference_gives_the_lowest_cosine_and_the_agreement() -> None:
    def against(cosine: float, agrees: bool) -> OutputCheck:
        return output(
            reference_cosine=cosine,
            reference_max_abs_error=1 - cosine,
            reference_top1_agrees=agrees,
        )

    (entry,) = accuracy_of(checked((against(0.99, True),), (against(0.9, False),))).reference
    assert (entry.cosine, entry.top1_agreement, entry.rows) == (0.9, 0.5, 2)
    assert entry.max_abs_error == pytest.approx(0.1)


def test_a_reused_check_has_no_reference_figures() -> None:
    assert accuracy_of(checked((output(),))).reference == ()
    assert accuracy_of(None).host_check is None


class Labelled:
    """Rows of one-hot inputs whose place is the label."""

    spec = "toy.npz"

    def __init__(self, labels: Any, *, batch: int = 1, count: int = 20) -> None:
        self.labels = labels
        self.batch = batch
        self.count = count

    def samples(self) -> Iterator[dict[str, np.ndarray]]:
        for start in range(0, self.count * self.batch, self.batch):
            rows = np.arange(start, start + self.batch) % 4
            yield {"x": np.eye(4, dtype=np.float32)[rows]}


def echo(sample: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {"y": sample["x"]}


@pytest.mark.parametrize("batch", [1, 5])
def test_labelled_data_is_scored_with_its_interval(batch: int) -> None:
    labels = np.arange(20 * batch) % 4
    labels[0] = 3
    seen: list[Progress] = []
    data: Any = Labelled(labels, batch=batch)
    result = evaluate_on_device(echo, data, on_progress=seen.append)
    assert (result.metric, result.kind, result.where) == ("top-1", "rate", "device")
    assert result.value == pytest.approx(1 - 1 / (20 * batch))
    assert result.lower is not None
    assert result.upper is not None
    assert result.lower < result.value < result.upper
    assert result.samples == 20 * batch
    assert (seen[-1].done, seen[-1].total) == (20, 20)


def test_a_model_without_a_batch_axis_is_scored_too() -> None:
    data: Any = Labelled(np.arange(20) % 4)
    result = evaluate_on_device(lambda sample: {"y": sample["x"][0]}, data, where="host")
    assert (result.value, result.where) == (1.0, "host")


def test_an_error_metric_is_no_rate() -> None:
    data: Any = Labelled(np.full(20, 2.5))
    result = evaluate_on_device(lambda _: {"y": np.array([[1.0]], np.float32)}, data)
    assert (result.metric, result.kind, result.value) == ("mean-abs-error", "error", 1.5)
    assert result.lower is None


def test_data_without_labels_or_samples_is_refused() -> None:
    nothing: Any = Labelled(None)
    with pytest.raises(DataError, match=r"cannot evaluate on toy\.npz: it has no labels"):
        evaluate_on_device(echo, nothing)
    empty: Any = Labelled(np.array([], np.int64), count=0)
    with pytest.raises(DataError, match="it has no samples"):
        evaluate_on_device(echo, empty)


def test_outputs_that_do_not_go_with_the_labels_are_refused() -> None:
    data: Any = Labelled(np.arange(7))
    with pytest.raises(DataError, match="cannot score outputs"):
        evaluate_on_device(echo, data)


def test_outputs_that_change_shape_are_not_scored() -> None:
    sizes = iter(range(1, 100))
    data: Any = Labelled(np.arange(20) % 4)
    with pytest.raises(DataError, match="cannot score outputs"):
        evaluate_on_device(lambda _: {"y": np.zeros((1, next(sizes)))}, data)


def test_opposite_outputs_are_never_called_alike() -> None:
    """Large ones overflowed a product of lengths to infinity, and NaN was taken for 1."""
    got, floats = np.array([1e200, 1.0]), np.array([-1e200, 1.0])
    compared = _compare(output(), got, floats)
    assert compared.reference_cosine == pytest.approx(-1.0)
    (entry,) = accuracy_of(checked((compared,))).reference
    assert (entry.cosine, entry.max_abs_error) == (pytest.approx(-1.0), None)
    unknown = replace(compared, reference_cosine=float("nan"))
    (entry,) = accuracy_of(checked((unknown,))).reference
    assert entry.cosine is None
    same = _compare(output(), floats, floats)
    assert (same.reference_cosine, same.reference_max_abs_error) == (1.0, 0.0)
