"""The grade of a measurement: from A to D, each step with its reason."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from edgesdk.bench.procedure_values import Procedure, WarmUp
from edgesdk.bench.trust import judge_trust
from edgesdk.bench.trust_values import GRADES, Trust, Weight, grade_of
from edgesdk.bench.values import BenchSpec, Conditions, ConditionSample


def steady(count: int = 400) -> list[float]:
    times: list[float] = (
        2.0 * np.exp(np.random.default_rng(1).normal(0, 0.02, count))
    ).tolist()
    return times


def seen(**changes: Any) -> ConditionSample:
    fields: dict[str, Any] = {
        "t_s": 0.0,
        "cpu_mhz": (1500.0,),
        "temp_c": {"cpu": 50.0},
        "load1": 0.1,
        "throttled": (),
        "mem_available_bytes": None,
    }
    return ConditionSample(**{**fields, **changes})


def conditions(
    *samples: ConditionSample, throttled: bool | None = False, **static: Any
) -> Conditions:
    static = {"governor": "performance", "emulated": None, **static}
    return Conditions(
        static=static, samples=samples or (seen(),), throttled=throttled, notes=()
    )


def judge(samples: list[float], where: Conditions | None = None) -> Trust:
    return judge_trust(samples, where or conditions(), cpu_count=4)


def test_steady_samples_of_a_quiet_device_get_the_best_grade() -> None:
    found = judge(steady())
    assert (found.grade, found.reasons) == ("A", ())
    assert found.text == f"A: {GRADES['A']}"
    assert found.effective_samples > 200


@pytest.mark.parametrize(
    ("where", "about", "grade", "said"),
    [
        (conditions(emulated="qemu-user"), "emulation", "D", "emulated (qemu-user)"),
        (
            conditions(seen(throttled=("under-voltage",)), throttled=True),
            "throttling",
            "D",
            "(under-voltage)",
        ),
        (conditions(governor="ondemand"), "clock", "B", "the governor is ondemand"),
        (
            conditions(seen(), seen(t_s=1.0, cpu_mhz=(1000.0,))),
            "clock",
            "B",
            "between 1000 and 1500 MHz",
        ),
        (
            conditions(seen(), seen(t_s=1.0, temp_c={"cpu": 65.0})),
            "temperature",
            "B",
            "from 50 to 65 °C",
        ),
        (conditions(seen(load1=3.0)), "load", "C", "a load of 3.00 on 4 cores"),
        (
            Conditions(static={}, samples=(), throttled=None, notes=()),
            "unknown conditions",
            "B",
            "nobody looked",
        ),
    ],
)
def test_each_circumstance_costs_what_it_should(
    where: Conditions, about: str, grade: str, said: str
) -> None:
    found = judge(steady(), where)
    assert [reason.about for reason in found.reasons] == [about]
    assert found.grade == grade
    assert said in found.text


@pytest.mark.parametrize(
    ("samples", "about", "grade"),
    [
        (steady(5), "samples", "D"),
        ([*(3.0 * np.ones(100)), *steady(300)], "warm-up", "D"),
        ([*(t * 1.3 for t in steady(20)), *steady(380)], "warm-up", "B"),
        ((np.array(steady()) * np.linspace(1, 1.12, 400)).tolist(), "drift", "C"),
        ((np.array(steady()) * np.linspace(1, 1.03, 400)).tolist(), "drift", "B"),
        ([t * (1.4 if k % 2 else 1.0) for k, t in enumerate(steady())], "modes", "C"),
        ([t * (9.0 if k % 12 == 0 else 1.0) for k, t in enumerate(steady())], "outliers", "C"),
    ],
)
def test_each_doubt_about_the_samples_is_named(
    samples: list[float], about: str, grade: str
) -> None:
    found = judge(samples)
    assert about in {reason.about for reason in found.reasons}
    assert found.grade >= grade  # "D" is above "C"
    assert all(reason.text for reason in found.reasons)


def test_many_outliers_that_cost_little_time_do_not_forbid_quoting() -> None:
    found = judge([t * (1.2 if k % 8 == 0 else 1.0) for k, t in enumerate(steady())])
    assert found.outliers is not None
    assert found.outliers.share > 0.05
    (weight,) = {reason.weight for reason in found.reasons if reason.about == "outliers"}
    assert weight == "minor"


def how(**changes: Any) -> Procedure:
    fields: dict[str, Any] = {
        "stopped": "runs",
        "why": "",
        "half_width": None,
        "warm_up": None,
        "around": None,
        "inferences": 400,
        "per_s": None,
        "one_call": True,
        "runs_by_stream": (),
        "served": None,
        "energy": (),
        "energy_per_inference_mj": None,
        "energy_why": "",
        "others_cpu": 0.02,
        "sampling_cpu": None,
        "clock_went_back": 0,
        "odd_outputs": {},
        "incomplete": "",
    }
    return Procedure(**{**fields, **changes})


@pytest.mark.parametrize(
    ("procedure", "about", "grade"),
    [
        (how(), [], "A"),
        (how(others_cpu=0.3), ["load"], "B"),
        (how(others_cpu=1.2), ["load"], "C"),
        (how(incomplete="the link broke"), ["broken off"], "C"),
        (how(clock_went_back=2), ["clock"], "B"),
        (
            how(warm_up=WarmUp(runs=50, seconds=1.0, settled=False, how="still falling")),
            ["warm-up"],
            "B",
        ),
    ],
)
def test_how_the_runs_came_about_counts_too(
    procedure: Procedure, about: list[str], grade: str
) -> None:
    # what others took was counted, so the load that includes our own says nothing
    found = judge_trust(steady(), conditions(seen(load1=3.0)), cpu_count=4, procedure=procedure)
    assert [reason.about for reason in found.reasons] == about
    assert found.grade == grade


def test_waiting_for_a_turn_is_no_reason_for_doubt() -> None:
    times = [t * (9.0 if k % 12 == 0 else 1.0) for k, t in enumerate(steady())]
    served = BenchSpec(scenario="server", rate_per_s=100.0)
    found = judge_trust(times, conditions(), cpu_count=4, spec=served)
    assert "outliers" not in {reason.about for reason in found.reasons}
    assert found.outliers is not None


def test_median_that_is_hardly_known_asks_to_measure_longer() -> None:
    times = np.exp(np.random.default_rng(2).normal(0, 0.5, 40)).tolist()
    found = judge(times)
    assert found.grade == "C"
    assert "measure longer" in found.text


def test_gravest_reason_comes_first() -> None:
    found = judge(steady(), conditions(governor="powersave", emulated="qemu-user"))
    assert [reason.weight for reason in found.reasons] == ["grave", "minor"]


@pytest.mark.parametrize(
    ("weights", "grade"),
    [
        ([], "A"),
        (["minor"], "B"),
        (["minor", "minor", "minor"], "B"),
        (["minor", "serious"], "C"),
        (["serious", "serious"], "D"),
        (["grave"], "D"),
    ],
)
def test_grade_follows_from_the_weights(weights: list[Weight], grade: str) -> None:
    assert grade_of(weights) == grade
