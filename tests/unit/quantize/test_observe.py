"""One pass over the samples: what it remembers, keeps apart, refuses and goes on from."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from edgesdk.errors import QuantizeError
from edgesdk.progress import Progress
from edgesdk.quantize.observe import Observed, Watch, observe
from edgesdk.quantize.state import State
from tests.unit.quantize.modes import graph, normal

Sample = dict[str, np.ndarray]

OPEN = """
small (float[N, 3, 8, 8] image) => (float[N, 5] scores)
{
    c = Conv <pads = [1, 1, 1, 1]> (image, w)
    r = Relu (c)
    p = GlobalAveragePool (r)
    f = Flatten (p)
    scores = MatMul (f, v)
}
"""
MIXES = """
centred (float[N, 4] x) => (float[N, 4] y)
{
    mean = ReduceMean <axes = [0], keepdims = 1> (x)
    c = Sub (x, mean)
    y = MatMul (c, v)
}
"""
WEIGHTS = {"w": normal(5, 3, 3, 3), "v": normal(5, 5)}
WATCHED = {"image": Watch(axis=1), "r": Watch(axis=1, by_channel=True), "f": Watch(axis=-1)}


def images(count: int, seed: int = 3) -> list[Sample]:
    random = np.random.default_rng(seed)
    return [
        {"image": random.standard_normal((1, 3, 8, 8)).astype(np.float32)} for _ in range(count)
    ]


def vectors(count: int) -> list[Sample]:
    return [{"x": normal(1, 4, seed=seed) + seed} for seed in range(count)]


def answers(samples: list[Sample]) -> dict[str, np.ndarray]:
    """Give inner tensors of the small graph over all samples, by numpy."""
    x = np.concatenate([sample["image"] for sample in samples]).astype(np.float64)
    padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(2, 3))
    r = np.maximum(np.einsum("ncxyij,ocij->noxy", windows, WEIGHTS["w"]), 0)
    return {"image": x, "r": r, "f": r.mean(axis=(2, 3))}


def same(one: Observed, other: Observed) -> bool:
    """Say whether two passes remember the same, to the last bit but for sums."""
    pairs = [(one.stats, other.stats), (one.held, other.held)]
    for ours, theirs in pairs:
        for name, stats in ours.items():
            mine, yours = stats.to_arrays(), theirs[name].to_arrays()
            if mine.keys() != yours.keys():
                return False
            if not all(np.allclose(mine[k], yours[k], rtol=1e-5, atol=1e-6) for k in mine):
                return False
    return len(one.kept) == len(other.kept) and one.samples == other.samples


def test_it_remembers_what_the_graph_gives() -> None:
    samples = images(40)
    found = observe(graph(OPEN, WEIGHTS), WATCHED, samples)
    for name, array in answers(samples).items():
        stats = found.whole[name]
        assert stats.seen == 40
        assert (stats.low, stats.high) == pytest.approx((array.min(), array.max()), abs=1e-4)
    assert found.whole["r"].channel_high == pytest.approx(
        answers(samples)["r"].max(axis=(0, 2, 3)), abs=1e-4
    )


@pytest.mark.parametrize("count", [1, 2, 3, 5, 33, 70])
def test_samples_run_together_give_what_they_give_alone(count: int) -> None:
    together = observe(graph(OPEN, WEIGHTS), WATCHED, images(count))
    alone = observe(graph(OPEN.replace("[N,", "[1,"), WEIGHTS), WATCHED, images(count))
    assert same(together, alone)


@pytest.mark.parametrize("twins", [False, True])
def test_samples_that_would_mix_run_alone(*, twins: bool) -> None:
    """Also where the samples that are tried together happen to be the same."""
    samples = vectors(30)
    if twins:
        samples[1:4] = [samples[0]] * 3
    found = observe(graph(MIXES, {"v": normal(4, 4)}), {"c": Watch(axis=-1)}, samples)
    assert (found.whole["c"].low, found.whole["c"].high) == (0.0, 0.0)


def test_samples_of_many_shapes_run_too() -> None:
    text = "wide (float[N, T, 5] x) => (float[N, T, 5] y) { y = MatMul (x, v) }"
    samples = [{"x": normal(1, 1 + seed % 5, 5, seed=seed)} for seed in range(30)]
    found = observe(graph(text, WEIGHTS), {"x": Watch(axis=-1)}, samples)
    assert found.whole["x"].low == min(float(one["x"].min()) for one in samples)
    assert len(found.whole["x"].rows) == sum(one["x"].shape[1] for one in samples)


@pytest.mark.parametrize("count", [1, 4, 64, 65, 300])
@pytest.mark.parametrize("announced", [False, True])
def test_kept_samples_lie_evenly_over_the_stream(count: int, *, announced: bool) -> None:
    samples = images(count)
    found = observe(
        graph(OPEN, WEIGHTS), WATCHED, iter(samples), total=count if announced else None
    )
    numbers = [
        next(
            i
            for i, one in enumerate(samples)
            if np.array_equal(one["image"], kept.inputs["image"])
        )
        for kept in found.kept
    ]
    gaps = set(np.diff([*numbers]).tolist())
    assert numbers[0] == 0
    assert len(gaps) <= 1
    assert len(numbers) <= min(16, -(-count // 4))
    assert len(numbers) >= min(8, -(-count // 4))
    assert count - numbers[-1] <= max(gaps, default=4)


def test_answers_are_kept_as_the_float_graph_gives_them() -> None:
    samples = images(9)
    found = observe(graph(OPEN, WEIGHTS), WATCHED, samples)
    for kept in found.kept:
        wanted = answers([kept.inputs])["f"] @ WEIGHTS["v"]
        assert kept.answers["scores"] == pytest.approx(wanted, abs=1e-4)


def test_kept_samples_do_not_decide_the_first_ranges() -> None:
    samples = images(21)
    samples[4] = {"image": samples[4]["image"] * 100}
    found = observe(graph(OPEN, WEIGHTS), WATCHED, samples)
    assert found.stats["image"].high < 10 < found.held["image"].high
    assert found.whole["image"].high == found.held["image"].high
    assert found.stats["image"].seen + found.held["image"].seen == 21


def test_a_single_sample_decides_them_all_the_same() -> None:
    found = observe(graph(OPEN, WEIGHTS), WATCHED, images(1))
    assert found.stats["image"].seen == found.whole["image"].seen == 1


def test_equal_samples_are_noticed() -> None:
    assert observe(graph(OPEN, WEIGHTS), WATCHED, images(1) * 12).alike
    assert not observe(graph(OPEN, WEIGHTS), WATCHED, [*images(1) * 12, *images(1, 4)]).alike


class AlwaysDue(State):
    """A state that is kept after every run."""

    def due(self, every_s: float = 0.0) -> bool:
        return super().due(-1.0)


@pytest.mark.parametrize("stops", [[7], [17, 40], [3, 9, 63]])
def test_a_pass_that_was_stopped_goes_on_to_the_same_end(
    tmp_path: Path, stops: list[int]
) -> None:
    samples = images(70)
    whole = observe(graph(OPEN, WEIGHTS), WATCHED, samples)

    def until(stop: int) -> Iterator[Sample]:
        yield from samples[:stop]
        raise KeyboardInterrupt

    for stop in stops:
        with pytest.raises(KeyboardInterrupt):
            observe(graph(OPEN, WEIGHTS), WATCHED, until(stop), state=AlwaysDue(tmp_path, "k"))
    again = observe(graph(OPEN, WEIGHTS), WATCHED, samples, state=AlwaysDue(tmp_path, "k"))
    assert same(again, whole)
    assert again.alike is whole.alike
    assert [k.answers["scores"].tolist() for k in again.kept] == [
        k.answers["scores"].tolist() for k in whole.kept
    ]


def test_what_was_known_already_does_not_run_again(tmp_path: Path) -> None:
    model, samples = graph(OPEN, WEIGHTS), images(50)
    observe(model, WATCHED, samples, state=AlwaysDue(tmp_path, "k"))
    steps: list[Progress] = []
    state = AlwaysDue(tmp_path, "k")
    covered = int(state.read_arrays("ranges")["samples"])
    observe(model, WATCHED, samples, state=state, on_progress=steps.append)
    ran = [one.done - 1 for one in steps if one.done < 50]
    assert ran == [number for number in range(covered) if number % 4 == 0]


def test_half_a_note_is_as_good_as_none(tmp_path: Path) -> None:
    model, samples = graph(OPEN, WEIGHTS), images(30)
    state = AlwaysDue(tmp_path, "k")
    observe(model, WATCHED, samples, state=state)
    arrays = state.read_arrays("ranges")
    state.write_arrays("ranges", {k: a for k, a in arrays.items() if k != "held:f:counts"})
    again = observe(model, WATCHED, samples, state=AlwaysDue(tmp_path, "k"))
    assert same(again, observe(model, WATCHED, samples))


@pytest.mark.parametrize("total", [20, 50, None])
def test_progress_ends_at_the_number_there_was(total: int | None) -> None:
    steps: list[Progress] = []
    observe(graph(OPEN, WEIGHTS), WATCHED, images(20), total=total, on_progress=steps.append)
    assert all(one.done >= other.done for other, one in itertools.pairwise(steps))
    assert (steps[-1].done, steps[-1].total, steps[-1].step) == (20, 20, "calibrate")


def test_no_samples_are_an_error() -> None:
    with pytest.raises(QuantizeError) as caught:
        observe(graph(OPEN, WEIGHTS), WATCHED, [])
    assert str(caught.value) == "cannot calibrate: there are no samples"
    assert caught.value.hint == "give some 100 typical inputs with --calib"
    assert caught.value.exit_code == 3


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_sample_that_is_not_finite_is_named_by_number(bad: float) -> None:
    samples = images(9)
    samples[6]["image"][0, 2, 1, 1] = bad
    with pytest.raises(QuantizeError) as caught:
        observe(graph(OPEN, WEIGHTS), WATCHED, samples)
    assert str(caught.value) == (
        "cannot calibrate with sample 6: input 'image' holds NaN or infinite values"
    )
    assert caught.value.facts == {"sample": 6}


@pytest.mark.parametrize("at", [0, 1, 2, 5])
def test_a_sample_without_an_input_is_an_error_of_ours(at: int) -> None:
    samples = images(9)
    samples[at] = {}
    with pytest.raises(QuantizeError, match="cannot run the model on this computer"):
        observe(graph(OPEN, WEIGHTS), WATCHED, samples)


def test_tensors_without_numbers_are_counted() -> None:
    text = "logs (float[N, 4] x) => (float[N, 4] y) { l = Log (x) y = MatMul (l, v) }"
    samples = [{"x": np.full((1, 4), number - 10.0, np.float32)} for number in range(40)]
    found = observe(graph(text, {"v": normal(4, 4)}), {"l": Watch(axis=-1)}, samples)
    assert found.whole["l"].not_finite > 0
    assert found.whole["l"].high == pytest.approx(np.log(29.0))
