"""What costs more than it saves is given up, in graphs of any size."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgesdk.backends.base import RuleBackend
from edgesdk.plan.islands import give_up_islands
from edgesdk.plan.schedule import Run, producers_of
from edgesdk.plan.weighing import Graph
from edgesdk.profiles.values import Speed
from tests.unit.plan.test_planner import backend, node, tensor

#: A launch and two copies of 64 bytes cost 20.32 us.
NPU = Speed(gmacs_per_s={"fp32": 1.0}, move_mb_per_s=100, copy_mb_per_s=400, launch_us=20)
CPU = Speed(gmacs_per_s={"fp32": 1.0}, move_mb_per_s=100, copy_mb_per_s=None, launch_us=0)
BACKENDS = {
    name: RuleBackend(profile=backend(name, name, speed=speed), format="onnx", rules=())
    for name, speed in (("npu", NPU), ("cpu", CPU))
}


def graph_of(
    reads: Mapping[int, list[int]], takes: Mapping[int, tuple[str, ...]], saves_us: float
) -> Graph:
    """Nodes that each read some earlier ones, and are faster by ``saves_us`` on the NPU."""
    values = {i: tensor(f"v{i}", 4, 4) for i in reads}
    nodes = {
        i: node(
            i,
            "Relu",
            values[i],
            values[i],
            inputs=tuple(f"v{maker}" for maker in makers) or ("x",),
            input_types=tuple(values[maker] for maker in makers) or (tensor("x", 4, 4),),
            constant_inputs=(False,) * max(1, len(makers)),
        )
        for i, makers in reads.items()
    }
    return Graph(
        nodes=nodes,
        backends=BACKENDS,
        takes=takes,
        times={
            i: {name: 10.0 + saves_us * (name == "cpu") for name in names}
            for i, names in takes.items()
        },
        producers=producers_of(
            {i: each.inputs for i, each in nodes.items()},
            {i: each.outputs for i, each in nodes.items()},
        ),
        tensors={value.name: value for value in (tensor("x", 4, 4), *values.values())},
        precisions=dict.fromkeys(nodes, "fp32"),
        outputs=(f"v{max(reads)}",),
        constants=(),
    )


def islands_in_a_row(count: int, length: int, saves_us: float) -> Graph:
    """Give ``count`` times ``length`` nodes that both take and one that only the CPU takes."""
    total = count * (length + 1)
    takes = {
        i: ("cpu",) if i % (length + 1) == length else ("npu", "cpu") for i in range(total)
    }
    return graph_of({i: [i - 1] if i else [] for i in range(total)}, takes, saves_us)


def first_choice(graph: Graph) -> dict[int, str]:
    return {index: names[0] for index, names in graph.takes.items()}


@pytest.mark.parametrize(("saves_us", "kept"), [(1.0, 0), (10.0, 500)])
def test_of_five_hundred_islands_none_is_kept_that_costs_more_than_it_saves(
    saves_us: float, kept: int
) -> None:
    graph = islands_in_a_row(500, 7, saves_us)
    placed, given_up = give_up_islands(graph, first_choice(graph))
    runs = graph.sum_up(placed).runs
    assert sum(run.label == "npu" for run in runs) == kept
    assert len(given_up) == 500 - kept
    assert all(island.costs_us > island.saves_us for island in given_up)
    assert graph.sums < 100, "a big graph is weighed by its borders, not by whole sums"


def test_what_an_island_saves_and_costs_is_told() -> None:
    graph = islands_in_a_row(1, 2, 1.0)
    _, (island,) = give_up_islands(graph, first_choice(graph))
    assert (island.backend, island.nodes) == ("npu", (0, 1))
    assert island.saves_us == pytest.approx(2.0)
    assert island.costs_us == pytest.approx(20 + 2 * 64 / 400)


@st.composite
def graphs(draw: st.DrawFn) -> Graph:
    count = draw(st.integers(1, 14))
    reads = {
        i: sorted(draw(st.sets(st.integers(0, i - 1), max_size=2))) if i else []
        for i in range(count)
    }
    names = st.sampled_from([("npu", "cpu"), ("cpu",), ("npu",)])
    return graph_of(reads, {i: draw(names) for i in reads}, draw(st.floats(0.5, 30)))


@given(graphs())
def test_no_single_move_makes_the_whole_cheaper_afterwards(graph: Graph) -> None:
    start = first_choice(graph)
    placed, given_up = give_up_islands(graph, start)
    whole = graph.sum_up(placed).whole
    assert whole <= graph.sum_up(start).whole
    assert all(name in graph.takes[index] for index, name in placed.items())
    runs = graph.sum_up(placed).runs
    for run in runs if len(runs) > 1 else ():
        for name in graph.backends:
            if all(name in graph.takes[index] for index in run.nodes):
                moved = graph.sum_up({**placed, **dict.fromkeys(run.nodes, name)}).whole
                own = graph.copies(graph.touched(run.nodes), *_stand(runs)) + sum(
                    graph.times[i][run.label] for i in run.nodes
                )
                assert whole - moved <= 0.01 * (own + graph.launch(run.label)) + 1e-9
    assert bool(given_up) == (placed != start)


def _stand(runs: Sequence[Run]) -> tuple[dict[int, int], list[str]]:
    where = {index: number for number, run in enumerate(runs) for index in run.nodes}
    return where, [run.label for run in runs]
