"""Parts are runs of one label in an order that works, whatever the graph looks like."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgesdk.plan.schedule import Run, producers_of, schedule


@st.composite
def graphs(draw: st.DrawFn) -> tuple[dict[int, str], dict[int, tuple[int, ...]]]:
    count = draw(st.integers(1, 24))
    labels = {i: draw(st.sampled_from("abc")) for i in range(count)}
    makers = {
        i: tuple(sorted(draw(st.sets(st.integers(0, i - 1), max_size=3)))) if i else ()
        for i in range(count)
    }
    return labels, makers


@given(graphs())
def test_every_node_runs_once_and_after_what_it_reads(
    graph: tuple[dict[int, str], dict[int, tuple[int, ...]]],
) -> None:
    labels, makers = graph
    runs = schedule(labels, makers)
    order = [index for run in runs for index in run.nodes]
    assert sorted(order) == sorted(labels)
    at = {index: place for place, index in enumerate(order)}
    assert all(at[maker] < at[index] for index in labels for maker in makers[index])
    assert all(labels[index] == run.label for run in runs for index in run.nodes)
    assert all(a.label != b.label for a, b in itertools.pairwise(runs))


def test_branches_that_end_in_one_node_share_a_run() -> None:
    # a splits into two of b, which meet again
    labels = {0: "a", 1: "b", 2: "b", 3: "a"}
    assert schedule(labels, {0: (), 1: (0,), 2: (0,), 3: (1, 2)}) == [
        Run("a", (0,)),
        Run("b", (1, 2)),
        Run("a", (3,)),
    ]


def test_the_better_of_two_beginnings_is_taken() -> None:
    # 0 (b) and 1 (a) are both ready; beginning with a needs three runs, with b two
    labels = {0: "b", 1: "a", 2: "a"}
    assert schedule(labels, {0: (), 1: (), 2: (0, 1)}) == [Run("b", (0,)), Run("a", (1, 2))]


def test_two_parts_never_wait_for_each_other() -> None:
    # merged by label alone, {0, 3} and {1, 2} would each need the other first
    labels = {0: "a", 1: "b", 2: "b", 3: "a"}
    runs = schedule(labels, {0: (), 1: (0,), 2: (), 3: (2,)})
    seen: set[int] = set()
    for run in runs:
        seen |= set(run.nodes)
        for index in run.nodes:
            assert {0: set(), 1: {0}, 2: set(), 3: {2}}[index] <= seen


def test_nothing_has_no_runs() -> None:
    assert schedule({}, {}) == []


@pytest.mark.parametrize("reads", [{0: ["x"], 1: ["a", "a"]}, {0: ["b"], 1: ["a"]}])
def test_producers_are_earlier_nodes_each_once(reads: dict[int, list[str]]) -> None:
    assert producers_of(reads, {0: ["a"], 1: ["b"]}) == {0: (), 1: (0,)}
