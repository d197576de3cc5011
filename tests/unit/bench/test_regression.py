"""Gates and replays on synthetic reports: what is a regression, and what cannot be compared."""

from __future__ import annotations

import math
import random
from dataclasses import replace
from typing import Any

import pytest

from edgesdk.bench.compare_values import Comparison, PairedBlock
from edgesdk.bench.history_values import Provenance, describe_run
from edgesdk.bench.procedure import broken_procedure
from edgesdk.bench.regression import (
    check_accuracy,
    check_latency,
    check_memory,
    first_look,
    look_of_comparison,
    look_of_ratio,
    make_gate,
    make_replay,
    side_of,
)
from edgesdk.bench.regression_conditions import (
    ALLOWABLE,
    check_allowed,
    find_differences,
    require_comparable,
    require_whole,
)
from edgesdk.bench.regression_ratio import MedianRatio, effective_samples, ratio_of_medians
from edgesdk.bench.regression_values import Look
from edgesdk.bench.statistics import make_latency
from edgesdk.bench.values import BenchmarkReport, BenchSpec
from edgesdk.errors import InputError
from tests.unit.report.fixtures import make_sample_report, vary


def series(count: int, median_ms: float, seed: int, rho: float = 0.0) -> list[float]:
    """Lognormal times of which neighbours agree by ``rho``, with spikes."""
    dice = random.Random(seed)
    level, times = 0.0, []
    for _ in range(count):
        level = rho * level + math.sqrt(1 - rho * rho) * dice.gauss(0, 0.05)
        times.append(median_ms * math.exp(level) * (1.8 if dice.random() < 0.02 else 1.0))
    return times


def timed(samples: list[float], **fields: Any) -> BenchmarkReport:
    return vary(latency=make_latency(samples), baseline=None, **fields)


# the ratio of two medians


@pytest.mark.parametrize("rho", [0.0, 0.6, 0.9])
def test_the_interval_of_a_ratio_holds_what_it_promises(rho: float) -> None:
    missed = 0
    for seed in range(150):
        found = ratio_of_medians(
            series(400, 3.0, 2 * seed, rho), series(300, 2.0, 2 * seed + 1, rho)
        )
        missed += not found.lower <= 1.5 <= found.upper
    assert missed / 150 <= 0.1, "95 % are promised; three standard errors are 5.3 points"


def test_samples_that_agree_with_their_neighbours_count_as_fewer() -> None:
    assert effective_samples(series(2000, 2.0, 1)) > 1500
    assert 50 < effective_samples(series(2000, 2.0, 1, rho=0.95)) < 400
    assert effective_samples([2.0] * 50) == 50
    alternating = [1.0, 2.0] * 50
    assert effective_samples(alternating) == 100, "never more than there are"


def test_a_ratio_of_constant_times_is_exact() -> None:
    found = ratio_of_medians([3.0] * 20, [2.0] * 10)
    assert (found.lower, found.value, found.upper) == pytest.approx((1.5, 1.5, 1.5))


@pytest.mark.parametrize(
    ("ours", "theirs", "seen"),
    [
        ([], [1.0] * 9, "rests on 0 samples"),
        ([1.0] * 9, [1.0] * 5, "rests on 5 samples"),
        ([0.0] * 9, [1.0] * 9, "one of them is zero"),
    ],
)
def test_too_little_is_refused(ours: list[float], theirs: list[float], seen: str) -> None:
    with pytest.raises(InputError, match=seen) as caught:
        ratio_of_medians(ours, theirs)
    assert caught.value.hint


# the first look and the second


@pytest.mark.parametrize(
    ("factor", "slower"),
    [(0.9, False), (1.0, False), (1.015, False), (1.05, True), (2.0, True)],
)
def test_only_what_is_beyond_the_limit_is_suspected(factor: float, slower: bool) -> None:
    ours = timed(series(2000, 2.0 * factor, 1))
    look = first_look(ours, timed(series(2000, 2.0, 2)), limit=0.02)
    assert look.slower is slower
    assert look.kind == "recorded"


def look(kind: str, *, slower: bool, ratio: float = 1.05) -> Look:
    return Look(
        kind=kind,  # type: ignore[arg-type]  # each caller gives one of the kinds
        ratio=ratio,
        lower=ratio - 0.005,
        upper=ratio + 0.005,
        coverage=0.95,
        p_value=None,
        slower=slower,
        seconds=None,
        seed=None,
        blocks=60,
        notes=(),
    )


@pytest.mark.parametrize(
    ("looks", "kept", "said"),
    [
        ([look("recorded", slower=False, ratio=1.0)], True, "no regression of more than 2 %"),
        ([look("recorded", slower=False, ratio=1.02)], True, "is not ruled out"),
        ([look("recorded", slower=True)], None, "is suspected"),
        (
            [look("recorded", slower=True), look("interleaved", slower=True, ratio=1.06)],
            False,
            "slower by more than 2 %, seen twice: ours takes 1.060 times",
        ),
        (
            [look("recorded", slower=True), look("interleaved", slower=False, ratio=1.001)],
            True,
            "the device or its software changed",
        ),
        (
            [look("recorded", slower=True), look("interleaved", slower=False, ratio=1.024)],
            True,
            "nor ruled out: the second measurement is too coarse",
        ),
        (
            [look("recorded", slower=True), look("fresh", slower=False, ratio=1.001)],
            True,
            "is not confirmed: ours takes 1.001",
        ),
    ],
)
def test_a_regression_is_what_two_looks_saw(
    looks: list[Look], kept: bool | None, said: str
) -> None:
    check = check_latency(looks, limit=0.02)
    assert check.kept is kept
    assert said in check.text
    assert check.change == pytest.approx(looks[-1].ratio - 1)


def comparison(ratio: float, error: float) -> Comparison:
    return Comparison(
        ours="a" * 64,
        theirs="b" * 64,
        device="bench-3",
        started=None,
        blocks=(
            PairedBlock(
                start=0, t_s=0.0, ours_ms=2.0, theirs_ms=2.0, runs=(3, 3), ours_first=True
            ),
        ),
        starts=3,
        mode="side-by-side",
        ratio=ratio,
        lower=ratio * math.exp(-4.3 * error),
        upper=ratio * math.exp(4.3 * error),
        coverage=0.95,
        log_error=error,
        freedom=2.0,
        seed=7,
        seconds=9.5,
        throttled=None,
        emulated=None,
        notes=("a note",),
    )


def test_a_comparison_in_turns_decides_by_its_p_value() -> None:
    clear, unclear = comparison(1.05, 0.002), comparison(1.05, 0.05)
    assert look_of_comparison(clear, limit=0.02).slower
    assert not look_of_comparison(unclear, limit=0.02).slower
    found = look_of_comparison(clear, limit=0.02)
    assert found.p_value == clear.slower_than(0.02)
    assert (found.seed, found.seconds, found.notes) == (7, 9.5, ("a note",))


def gate(ours: BenchmarkReport, theirs: BenchmarkReport, looks: list[Look], *checks: Any):
    return make_gate(
        ours=side_of(ours, called="the newest run"),
        theirs=side_of(theirs, called="main"),
        differences=find_differences(ours, theirs),
        looks=looks,
        checks=[check_latency(looks, limit=0.02), *checks],
    )


def test_any_limit_that_is_not_kept_fails_the_gate() -> None:
    report = make_sample_report()
    fine = look("recorded", slower=False, ratio=1.0)
    suspected = look("recorded", slower=True)
    fat = replace(report, peak_rss_bytes=2 * (report.peak_rss_bytes or 0))
    memory = check_memory(fat, report, limit=0.1)
    assert gate(report, report, [fine]).outcome == "passed"
    assert gate(report, report, [suspected]).outcome == "unconfirmed"
    assert gate(report, report, [suspected, suspected]).outcome == "failed"
    assert gate(fat, report, [fine], memory).outcome == "failed"
    result = gate(fat, report, [suspected], memory)
    assert result.outcome == "failed"
    assert result.text == memory.text


# accuracy and memory


def with_accuracy(value: float, **fields: Any) -> BenchmarkReport:
    report = make_sample_report()
    labelled = report.accuracy.labelled
    assert labelled is not None
    changed = replace(labelled, value=value, lower=None, upper=None, **fields)
    return replace(report, accuracy=replace(report.accuracy, labelled=changed))


def test_accuracy_is_held_in_points_of_a_rate_and_shares_of_an_error() -> None:
    assert check_accuracy(with_accuracy(0.975), with_accuracy(0.98), limit=0.01).kept
    lost = check_accuracy(with_accuracy(0.96), with_accuracy(0.98), limit=0.01)
    assert lost.kept is False
    assert lost.change == pytest.approx(0.02)
    assert "-2.00 points" in lost.text
    assert check_accuracy(with_accuracy(0.99), with_accuracy(0.98), limit=0.0).kept
    worse = check_accuracy(
        with_accuracy(1.2, kind="error"), with_accuracy(1.0, kind="error"), limit=0.1
    )
    assert worse.kept is False
    assert worse.change == pytest.approx(0.2)


def test_accuracy_that_cannot_be_compared_is_said() -> None:
    report = make_sample_report()
    none = replace(report, accuracy=replace(report.accuracy, labelled=None))
    with pytest.raises(InputError, match="this measurement has no labelled result"):
        check_accuracy(none, report, limit=0.01)
    with pytest.raises(InputError, match="the reference has no labelled result"):
        check_accuracy(report, none, limit=0.01)
    with pytest.raises(InputError, match="ours is top-1, the reference's mAP"):
        check_accuracy(report, with_accuracy(0.5, metric="mAP"), limit=0.01)


def test_memory_is_held() -> None:
    report = make_sample_report()
    grown = replace(report, peak_rss_bytes=int(1.2 * (report.peak_rss_bytes or 0)))
    assert check_memory(grown, report, limit=0.25).kept
    assert check_memory(grown, report, limit=0.1).kept is False
    with pytest.raises(InputError, match="no peak memory"):
        check_memory(replace(report, peak_rss_bytes=None), report, limit=0.1)


# circumstances


def with_static(**static: Any) -> BenchmarkReport:
    report = make_sample_report()
    conditions = replace(report.conditions, static={**report.conditions.static, **static})
    return replace(report, conditions=conditions)


def other_device(**fields: Any) -> BenchmarkReport:
    report = make_sample_report()
    return replace(report, device=replace(report.device, **fields))


@pytest.mark.parametrize(
    ("other", "name", "ours", "theirs"),
    [
        (with_static(governor="powersave"), "governor", "ondemand", "powersave"),
        (with_static(emulated="qemu-user"), "emulated", "no", "qemu-user"),
        (vary(spec=BenchSpec(threads=2)), "threads", "the default", "2"),
        (other_device(name="bench-4"), "device", "bench-3", "bench-4"),
        (other_device(cpu_count=2), "cores", "4", "2"),
        (
            other_device(device_tree_model="Another"),
            "processor",
            "Raspberry Pi 5 Model B Rev 1.0",
            "Another",
        ),
    ],
)
def test_what_decides_is_refused_by_name_and_may_be_allowed(
    other: BenchmarkReport, name: str, ours: str, theirs: str
) -> None:
    found = find_differences(make_sample_report(), other)
    assert [(d.name, d.ours, d.theirs, d.decisive) for d in found] == [
        (name, ours, theirs, True)
    ]
    with pytest.raises(InputError, match=f"{name} is {ours}, was {theirs}") as caught:
        require_comparable(found)
    assert f"--allow {name}" in caught.value.hint
    require_comparable(found, allowed=check_allowed([name]))


@pytest.mark.parametrize(
    ("other", "name"),
    [
        (other_device(kernel="6.12"), "kernel"),
        (other_device(agent_version="0.2.0"), "agent"),
        (with_static(max_mhz=(1500.0,)), "max mhz"),
        (
            replace(
                make_sample_report(),
                bundle=replace(make_sample_report().bundle, precision="fp32"),
            ),
            "precision",
        ),
    ],
)
def test_what_may_explain_a_change_is_named_and_not_refused(
    other: BenchmarkReport, name: str
) -> None:
    found = find_differences(make_sample_report(), other)
    assert [(d.name, d.decisive) for d in found] == [(name, False)]
    require_comparable(found)


def test_what_one_of_them_does_not_tell_is_no_difference() -> None:
    silent = other_device(kernel=None, cpu_count=None, os=None)
    assert find_differences(make_sample_report(), silent) == ()
    assert find_differences(silent, with_static(governor=None)) == ()


def test_how_long_somebody_measured_is_no_difference() -> None:
    longer = vary(spec=BenchSpec(runs=4000, duration_s=None, warmup_runs=50))
    assert find_differences(make_sample_report(), longer) == ()


def test_an_unknown_circumstance_cannot_be_allowed() -> None:
    assert {"device", "governor", "emulated", "threads"} <= set(ALLOWABLE)
    with pytest.raises(InputError, match="no such circumstance") as caught:
        check_allowed(["govenor"])
    assert caught.value.hint == "did you mean governor?"


# replays


def replayed(factor: float, margin: float = 0.05, count: int = 800):
    return make_replay(
        timed(series(count, 2.0 * factor, 1)),
        timed(series(count, 2.0, 2)),
        called="report.json",
        differences=(),
        margin=margin,
    )


@pytest.mark.parametrize(
    ("factor", "agrees"), [(1.0, True), (1.04, True), (0.97, True), (1.2, False), (0.8, False)]
)
def test_a_replay_agrees_within_its_margin(factor: float, agrees: bool) -> None:
    result = replayed(factor)
    assert result.agrees is agrees
    assert result.text.startswith("agrees" if agrees else "does not agree")


def test_a_replay_that_says_little_says_so() -> None:
    ratio = MedianRatio(value=1.0, lower=0.7, upper=1.4, coverage=0.95, effective=(6, 6))
    assert look_of_ratio(ratio, kind="fresh", limit=0.05).slower is False
    noisy = [1.0, 9.0, 2.0, 8.0, 3.0, 7.0]
    result = make_replay(timed(noisy), timed(noisy), called="it", differences=(), margin=0.05)
    assert result.agrees
    assert "measure longer" in result.text


def test_a_replay_that_disagrees_names_what_differs() -> None:
    ours, theirs = timed(series(400, 4.0, 1)), timed(series(400, 2.0, 2))
    theirs = replace(theirs, device=replace(theirs.device, kernel="6.12"))
    found = find_differences(ours, theirs)
    result = make_replay(ours, theirs, called="it", differences=found, margin=0.05)
    assert not result.agrees
    assert "kernel differ" in result.text


def test_a_side_says_where_it_is_from() -> None:
    run = describe_run(
        make_sample_report(), labels=("main",), provenance=Provenance(branch="b", commit="c")
    )
    side = side_of(make_sample_report(), called="main", run=run)
    assert (side.called, side.model, side.samples) == ("main", "digits-cnn", 400)
    assert (side.run, side.labels, side.branch, side.commit) == (run.id, ("main",), "b", "c")


def test_a_measurement_that_broke_off_is_not_compared() -> None:
    broken = vary(
        procedure=broken_procedure("the link was lost", runs=500, kept=400, spec=BenchSpec())
    )
    with pytest.raises(InputError, match="cannot compare main: it broke off: the link") as e:
        require_whole(broken, called="main")
    assert e.value.hint.startswith("measure again")
    require_whole(make_sample_report(), called="main")


@pytest.mark.parametrize(
    ("spec", "names"),
    [
        (BenchSpec(settle=True, until=0.01, patience_s=2.0, seed=9), []),
        (BenchSpec(scenario="offline", batch=8), ["scenario", "batch"]),
        (BenchSpec(scenario="server", rate_per_s=50.0), ["scenario", "rate-per-s"]),
        (BenchSpec(cpus=(0,)), ["cpus"]),
    ],
)
def test_what_is_measured_counts_and_how_long_does_not(
    spec: BenchSpec, names: list[str]
) -> None:
    found = find_differences(make_sample_report(), vary(spec=spec))
    assert [each.name for each in found if each.decisive] == names
    assert set(names) <= set(ALLOWABLE)


@pytest.mark.parametrize(("was", "limit"), [(0.91, 0.01), (0.93, 0.03), (0.57, 0.07)])
def test_a_change_of_just_the_limit_is_kept_whatever_floats_make_of_it(
    was: float, limit: float
) -> None:
    ours = with_accuracy(round(was - limit, 2))
    assert check_accuracy(ours, with_accuracy(was), limit=limit).kept
    report = make_sample_report()
    before = replace(report, peak_rss_bytes=100)
    after = replace(report, peak_rss_bytes=100 + round(100 * limit))
    assert check_memory(after, before, limit=limit).kept
    assert check_memory(replace(report, peak_rss_bytes=110), before, limit=0.1).kept
    assert check_memory(replace(report, peak_rss_bytes=111), before, limit=0.1).kept is False
