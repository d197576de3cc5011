"""Who wins a contest: by a clear difference, by the order where there is none, by accuracy."""

from __future__ import annotations

import random

import pytest

from edgesdk.bench.decide import choose_fastest, lost_accuracy, ratio_text
from edgesdk.bench.statistics import make_ratio
from edgesdk.bench.values import AccuracyResult, Ratio


def rounds(*medians: float) -> list[list[float]]:
    """Rounds of three samples each, with these medians and one outlier each."""
    return [[median, median * 0.9, median * 9] for median in medians]


def labelled(value: float, metric: str = "top-1") -> AccuracyResult:
    return AccuracyResult(
        metric=metric,
        kind="error" if metric.endswith("error") else "rate",
        value=value,
        lower=None,
        upper=None,
        samples=100,
        where="device",
    )


def test_the_faster_one_wins_where_every_round_says_so() -> None:
    choice = choose_fastest({"a": rounds(*[2.0] * 6), "b": rounds(*[1.0, 1.1, 0.9] * 2)})
    assert choice.winner == "b"
    assert choice.tied == ()
    ratio = choice.ratios["a"]
    assert (ratio.lower, ratio.upper) == (pytest.approx(2 / 1.1), pytest.approx(2 / 0.9))
    assert ratio.coverage == pytest.approx(1 - 2 / 2**6)
    assert set(choice.ratios) == {"a"}


def test_a_drift_that_slows_both_hides_no_difference() -> None:
    slow = [1.0, 1.4, 1.9, 2.5, 3.2, 4.0]
    choice = choose_fastest({"a": rounds(*(1.1 * t for t in slow)), "b": rounds(*slow)})
    assert choice.winner == "b"
    assert choice.ratios["a"].value == pytest.approx(1.1)


def test_a_tie_goes_by_the_order_and_is_called_one() -> None:
    a, b = rounds(1.0, 1.1, 1.0, 1.1, 1.0, 1.1), rounds(1.1, 1.0, 1.1, 1.0, 1.1, 0.9)
    assert choose_fastest({"a": a, "b": b}).winner == "a"
    assert choose_fastest({"b": b, "a": a}).winner == "b"
    assert choose_fastest({"a": a, "b": b}).tied == ("b",)


def test_five_rounds_support_no_claim_however_large_the_difference() -> None:
    choice = choose_fastest({"a": rounds(*[9.0] * 5), "b": rounds(*[1.0] * 5)})
    assert (choice.winner, choice.tied) == ("a", ("b",))
    assert choice.ratios["b"].lower is None
    assert "too few for an interval: 5 rounds, expected 6" in ratio_text(choice.ratios["b"])


def test_one_bad_round_of_ten_takes_no_victory_away_and_two_of_six_do() -> None:
    assert (
        choose_fastest({"a": rounds(*[1.0] * 10), "b": rounds(2.0, *[0.5] * 9)}).winner == "b"
    )
    few = choose_fastest({"a": rounds(*[1.0] * 6), "b": rounds(2.0, 2.0, *[0.5] * 4)})
    assert (few.winner, few.tied) == ("a", ("b",))


def test_of_three_the_first_that_cannot_be_told_from_the_fastest_wins() -> None:
    near = rounds(1.0, 1.02, 1.0, 0.98, 1.0, 1.02)
    choice = choose_fastest(
        {"slow": rounds(*[3.0] * 6), "near": near, "fast": rounds(*[1.0] * 6)}
    )
    assert (choice.winner, choice.tied) == ("near", ("fast",))
    assert choice.ratios["slow"].value == pytest.approx(3.0)


def test_one_alone_wins_without_a_ratio() -> None:
    choice = choose_fastest({"a": rounds(1.0)})
    assert (choice.winner, choice.tied, choice.ratios) == ("a", (), {})


def test_of_two_alike_hardly_ever_is_one_called_faster() -> None:
    dice = random.Random(4)
    claims = 0
    for _ in range(400):
        measured = {
            name: [[dice.lognormvariate(0, 0.05) for _ in range(15)] for _ in range(10)]
            for name in "ab"
        }
        claims += not choose_fastest(measured).tied
    assert claims / 400 < 0.05


def test_a_ratio_says_its_interval() -> None:
    ratio = make_ratio([2.0] * 6, [1.0] * 6)
    assert ratio_text(ratio) == "2.00 times as long (95 % interval 2.00 to 2.00, 6 rounds)"


def test_a_ratio_near_1_shows_on_which_side_its_ends_are() -> None:
    ratio = make_ratio([1.004, 1.01, 1.02, 1.03, 1.04, 1.3], [1.0] * 6)
    assert ratio_text(ratio) == "1.025 times as long (95 % interval 1.004 to 1.300, 6 rounds)"


def test_a_ratio_needs_its_whole_interval() -> None:
    with pytest.raises(ValueError, match="an interval needs lower, upper and coverage"):
        Ratio(value=1.0, lower=1.0, upper=None, coverage=None, rounds=6)
    with pytest.raises(ValueError, match="lower is above upper"):
        Ratio(value=1.0, lower=2.0, upper=1.0, coverage=0.96, rounds=6)


@pytest.mark.parametrize(
    ("ours", "reference", "max_drop", "said"),
    [
        (labelled(0.98), labelled(0.99), None, ""),
        (
            labelled(0.97),
            labelled(0.99),
            None,
            "it loses 2.00% of top-1 (97.00%, 99.00% unquantized; at most 1.00% allowed)",
        ),
        (labelled(0.97), labelled(0.99), 0.02, ""),
        (labelled(0.97), labelled(0.99), 0.0, "it loses 2.00% of top-1"),
        (labelled(0.97), None, 0.0, ""),
        (labelled(0.5), labelled(0.4, "mean absolute error"), 0.0, ""),
        (
            labelled(0.5, "mean absolute error"),
            labelled(0.4, "mean absolute error"),
            0.1,
            "it loses 25.00% of mean absolute error (0.5, 0.4 unquantized; at most 10.00%",
        ),
    ],
)
def test_what_is_lost_is_held_against_what_is_allowed(
    ours: AccuracyResult, reference: AccuracyResult | None, max_drop: float | None, said: str
) -> None:
    found = lost_accuracy(ours, reference, max_drop)
    assert found.startswith(said)
    assert bool(found) == bool(said)
