"""Sizes and times as people write them."""

from __future__ import annotations

import pytest

from edgesdk.cli.app import run
from edgesdk.cli.measure import as_options, bench_spec
from edgesdk.cli.quantities import read_cpus, read_seconds, read_share, read_size
from edgesdk.errors import InputError


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0", 0),
        ("1000", 1000),
        ("2GB", 2 * 10**9),
        ("2 gib", 2 << 30),
        ("1.5M", 3 << 19),
        (".5kB", 500),
    ],
)
def test_size(text: str, size: int) -> None:
    assert read_size(text, option="--budget") == size


@pytest.mark.parametrize(
    ("text", "seconds"), [("20ms", 0.02), ("1.5", 1.5), ("10min", 600.0), ("2H", 7200.0)]
)
def test_time(text: str, seconds: float) -> None:
    assert read_seconds(text, option="--wait", at_most_s=86_400.0) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "GB", "-1", "1e9", "2 GBB", "nan", "inf", "9" * 400])
def test_what_is_no_quantity_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(InputError, match="cannot use --budget") as caught:
        read_size(text, option="--budget")
    assert "2GB" in caught.value.hint
    with pytest.raises(InputError, match="cannot use --wait"):
        read_seconds(text, option="--wait", at_most_s=60.0)


def test_time_beyond_its_limit_is_refused() -> None:
    with pytest.raises(InputError, match=r"cannot use --wait '2h': it is longer than 60 s"):
        read_seconds("2h", option="--wait", at_most_s=60.0)


@pytest.mark.parametrize(("text", "share"), [("1%", 0.01), ("0.5 %", 0.005), ("0.02", 0.02)])
def test_shares_are_read(text: str, share: float) -> None:
    assert read_share(text, option="--until") == pytest.approx(share)


@pytest.mark.parametrize(("text", "share"), [("0%", 0.0), ("0", 0.0), ("100%", 1.0)])
def test_a_limit_may_be_nothing_or_all(text: str, share: float) -> None:
    assert read_share(text, option="--max-regression", ends=True) == share
    with pytest.raises(InputError):
        read_share("1", option="--max-regression", ends=True)


@pytest.mark.parametrize("text", ["", "0", "100%", "-1%", "nan", "inf", "one", "1%%"])
def test_what_is_no_share_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="not a share between 0 % and 100 %"):
        read_share(text, option="--until")


@pytest.mark.parametrize(
    ("text", "cpus"), [("0", (0,)), ("1,0", (0, 1)), ("2-4", (2, 3, 4)), ("0, 4-5", (0, 4, 5))]
)
def test_processors_are_read(text: str, cpus: tuple[int, ...]) -> None:
    assert read_cpus(text, option="--cpus") == cpus


@pytest.mark.parametrize("text", ["", "a", "1,", "-1", "3-1", "5-2,0", "0-9999", "1-", "٣"])
def test_what_is_no_list_of_processors_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="not a list of processors"):
        read_cpus(text, option="--cpus")


USUAL = dict.fromkeys(("runs", "duration", "warmup", "threads"))


def test_without_options_it_is_measured_until_the_median_is_known() -> None:
    spec = bench_spec(**USUAL)
    assert (spec.settle, spec.until, spec.patience_s, spec.runs) == (True, 0.01, 2.0, 400)


def test_options_that_say_how_long_are_kept_to() -> None:
    exact = bench_spec(**{**USUAL, "runs": 50, "warmup": 3})
    assert (exact.settle, exact.until, exact.runs, exact.warmup_runs) == (False, None, 50, 3)
    timed = bench_spec(**{**USUAL, "duration": "2m"})
    assert (timed.duration_s, timed.until, timed.patience_s) == (120.0, 0.01, None)
    narrow = bench_spec(**{**USUAL, "runs": 50}, until="0.5%")
    assert (narrow.runs, narrow.until, narrow.patience_s) == (50, 0.005, None)


@pytest.mark.parametrize(
    ("options", "scenario"),
    [
        ({}, "single-stream"),
        ({"streams": 3}, "multi-stream"),
        ({"batch": 8}, "offline"),
        ({"batch": 8, "scenario": "single-stream"}, "single-stream"),
        ({"rate": 5.0}, "server"),
        ({"rate": 5.0, "streams": 2}, "server"),
        ({"scenario": "offline"}, "offline"),
        ({"scenario": "multi-stream"}, "multi-stream"),
    ],
)
def test_the_scenario_follows_from_the_options(options: dict, scenario: str) -> None:
    assert bench_spec(**USUAL, **options).scenario == scenario


def test_a_scenario_nobody_knows_is_refused_with_those_there_are() -> None:
    with pytest.raises(InputError, match="no scenario 'sever'") as caught:
        bench_spec(**USUAL, scenario="sever")
    assert caught.value.hint == "did you mean server?"


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"runs": 50},
        {"runs": 500, "until": "0.5%"},
        {"duration": "30s"},
        {"duration": "90s", "warmup": 0, "threads": 2},
        {"rate": 12.5, "streams": 2, "seed": 4, "cpus": "0,2-3"},
        {"batch": 8},
        {"batch": 8, "scenario": "single-stream"},
        {"streams": 3, "runs": 0, "duration": "2s"},
    ],
)
def test_the_options_that_repeat_a_measurement_give_its_spec(given: dict) -> None:
    spec = bench_spec(**{**USUAL, **given})
    words = as_options(spec).split()
    again = dict(zip((w.removeprefix("--") for w in words[::2]), words[1::2], strict=True))
    kinds = {"runs": int, "warmup": int, "streams": int, "batch": int, "seed": int}
    kinds |= {"threads": int, "rate": float}
    typed = {name: kinds.get(name, str)(value) for name, value in again.items()}
    assert bench_spec(**{**USUAL, **typed}) == spec


@pytest.mark.parametrize(("option", "most"), [("--compare-seed", 2**32), ("--seed", 2**63)])
def test_a_seed_that_no_report_can_hold_is_refused(option: str, most: int, capsys) -> None:
    assert run(["bench", "local:", "--compare", "previous", option, str(most)]) == 2
    assert f"Invalid value for '{option}'" in capsys.readouterr().err
