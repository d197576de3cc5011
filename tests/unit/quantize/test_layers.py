"""Errors of layers: by themselves and accumulated, against sums made another way."""

from __future__ import annotations

import math

import numpy as np
import onnx_ir as ir
import pytest

from edgesdk.model import simplify
from edgesdk.profiles import find_target
from edgesdk.quantize.branches import LayerGraphs, layer_graphs
from edgesdk.quantize.compare import open_candidate
from edgesdk.quantize.engine import quantize_static
from edgesdk.quantize.host import HostSession
from edgesdk.quantize.layers import Gap, compare, groups_of, measure_on_host, run_tapped
from edgesdk.quantize.means import MEANS
from edgesdk.quantize.trial import Settled
from tests.unit.quantize.modes import graph, normal

NET = """
net (float[1, 3, 8, 8] x) => (float[1, 5] y)
{
    a = Conv <pads = [1, 1, 1, 1]> (x, w1, b1)
    b = Relu (a)
    c = Conv <pads = [1, 1, 1, 1]> (b, w2)
    d = Add (b, c)
    left, right = Split <axis = 1, num_outputs = 2> (d)
    joined = Concat <axis = 1> (right, left)
    p = GlobalAveragePool (joined)
    f = Flatten (p)
    y = Gemm <transB = 1> (f, w3, b3)
}
"""


def weights() -> dict[str, np.ndarray]:
    shapes = {"w1": (4, 3, 3, 3), "b1": (4,), "w2": (4, 4, 3, 3), "w3": (5, 4), "b3": (5,)}
    return {name: normal(*shape, seed=n) for n, (name, shape) in enumerate(shapes.items())}


def samples(count: int = 12) -> list[dict[str, np.ndarray]]:
    return [{"x": normal(1, 3, 8, 8, seed=100 + number)} for number in range(count)]


def settled(
    constants: dict[str, np.ndarray] | None = None, means: tuple[str, ...] = MEANS
) -> Settled:
    header = '<ir_version: 8, opset_import: ["" : 18]>'
    scheme = find_target("host").backends[0].scheme
    assert scheme is not None
    found: list[Settled] = []
    quantize_static(
        simplify(graph(header + NET, constants or weights())),
        samples(),
        scheme=scheme,
        means=means,
        on_settled=found.append,
    )
    return found[0]


@pytest.fixture(scope="module")
def found() -> Settled:
    return settled()


@pytest.fixture(scope="module")
def graphs(found: Settled) -> LayerGraphs:
    return layer_graphs(found.trial, found.before)


def tapped(model: ir.Model, name: str) -> ir.Model:
    copy = model.clone()
    copy.graph.outputs.extend(v for node in copy.graph for v in node.outputs if v.name == name)
    return copy


def sqnr_db(wanted: list[np.ndarray], got: list[np.ndarray]) -> float:
    error = sum(
        float(((g.astype("f8") - w) ** 2).sum()) for g, w in zip(got, wanted, strict=True)
    )
    return 10 * math.log10(sum(float((w.astype("f8") ** 2).sum()) for w in wanted) / error)


def test_every_kernel_is_a_layer_in_the_order_of_the_graph(graphs: LayerGraphs) -> None:
    ops = [layer.op for layer in graphs.layers]
    assert ops[0] == "Conv+Relu"
    assert ops[-1] == "Gemm"
    assert sum(op.startswith("Conv") for op in ops) == 2
    assert graphs.layers[0].elements == 4 * 8 * 8
    split = next(layer for layer in graphs.layers if layer.op == "Split")
    assert split.results == ("left", "right")


def test_local_is_what_the_kernel_alone_in_eight_bits_loses(
    found: Settled, graphs: LayerGraphs
) -> None:
    (group,) = measure_on_host(graphs, samples)
    for layer in graphs.layers:
        if not layer.op.startswith("Conv"):
            continue
        # the whole float graph with one kernel quantized: made by the search for a budget
        only = found.trial.realize_only(found.before, {layer.name})
        name = layer.results[0]
        wanted = [
            HostSession(tapped(graphs.floats, name), optimize="off").run(one, [name])[name]
            for one in samples()
        ]
        (quantize,) = [
            node
            for node in only.graph
            if node.op_type == "QuantizeLinear" and node.inputs[0].name == name
        ]
        pair = next(iter(quantize.outputs[0].uses()))[0].outputs[0].name
        session = open_candidate(tapped(only, pair))
        got = [session.run(one, [pair])[pair] for one in samples()]
        assert group.local[layer.name].sqnr_db == pytest.approx(sqnr_db(wanted, got), abs=0.15)


def test_accumulated_at_the_end_is_the_error_of_the_whole_graph(graphs: LayerGraphs) -> None:
    (group,) = measure_on_host(graphs, samples)
    plain, whole = HostSession(graphs.floats, optimize="off"), open_candidate(graphs.whole)
    wanted = [plain.run(one)["y"] for one in samples()]
    got = [whole.run(one)["y"] for one in samples()]
    last = graphs.layers[-1].name
    assert group.accumulated[last].sqnr_db == pytest.approx(sqnr_db(wanted, got), abs=0.15)
    assert group.accumulated[last].rank < group.local[last].rank
    first = graphs.layers[0].name
    assert group.accumulated[first].sqnr_db == pytest.approx(
        group.local[first].sqnr_db, abs=0.1
    )


def test_the_layer_that_is_ruined_is_the_worst_by_itself() -> None:
    ruined = weights()
    # a channel that is always 0, so that what it is multiplied with says nothing in float, and
    # takes the steps of all others in 8 bits
    ruined["w1"][3], ruined["b1"][3] = 0.0, -1.0
    ruined["w2"][:, 3] = 1000.0
    one = settled(means=(), constants=ruined)
    shown = layer_graphs(one.trial, one.before)
    (group,) = measure_on_host(shown, samples)
    worst, second, *_ = sorted(shown.layers, key=lambda layer: group.local[layer.name].rank)
    assert worst.results == ("c",)
    assert group.local[worst.name].rank < 5
    assert group.local[second.name].rank > 25
    assert group.accumulated[shown.layers[-1].name].rank < 25, "what comes after suffers"


def test_equalized_graphs_are_compared_with_equalized_tensors(found: Settled) -> None:
    import dataclasses

    choice = dataclasses.replace(found.before, equalize=True)
    (group,) = measure_on_host(layer_graphs(found.trial, choice), samples)
    assert min(each.rank for each in group.local.values()) > 15


def test_what_is_kept_in_float_is_no_layer(found: Settled) -> None:
    name = next(iter(found.trial.layout(found.before).units))
    kept = found.before.keeping({name: "a test"})
    assert name not in [layer.name for layer in layer_graphs(found.trial, kept).layers]


def test_results_are_the_same_in_groups_of_one(graphs: LayerGraphs) -> None:
    (together,) = measure_on_host(graphs, samples)
    apart = list(measure_on_host(graphs, samples, groups=[[one] for one in graphs.layers]))
    assert len(apart) == len(graphs.layers)
    for group in apart:
        (layer,) = group.layers
        for one, other in (
            (group.local, together.local),
            (group.accumulated, together.accumulated),
        ):
            assert one[layer.name].rank == pytest.approx(other[layer.name].rank, abs=0.3)


def test_groups_keep_to_a_bound_or_have_one_layer(graphs: LayerGraphs) -> None:
    groups = groups_of(graphs.layers, most_bytes=4 * 4 * 8 * 8)
    assert [one for group in groups for one in group] == list(graphs.layers)
    for group in groups:
        assert len(group) == 1 or sum(one.elements for one in group) <= 4 * 8 * 8


def test_distances_of_hand_made_tensors() -> None:
    def distance(
        wanted: list[float], got: list[float]
    ) -> tuple[float | None, float | None, str]:
        gap = Gap()
        gap.add(np.array(wanted, np.float32), np.array(got, np.float32))
        found = gap.distance()
        return found.sqnr_db, found.cosine, found.state

    assert distance([3, 4], [3, 4]) == (None, 1.0, "exact")
    assert distance([3, 4], [3, 4.5]) == (20.0, pytest.approx(0.99846, abs=1e-4), "")
    assert distance([3, 4], [3, math.nan]) == (None, None, "lost")
    assert distance([3, 4], [3, math.inf]) == (None, None, "lost")
    assert distance([0, 0], [0, 1]) == (None, None, "lost")
    assert distance([3, 4], [3]) == (None, None, "lost")
    # where float has no finite number there is nothing to compare
    assert distance([3, math.inf, math.nan], [3, 0, 0]) == (None, 1.0, "exact")


def test_the_worst_ranks_first() -> None:
    lost, far, near, exact = Gap(), Gap(), Gap(), Gap()
    one = np.ones(4, np.float32)
    for gap, off in ((lost, math.nan), (far, 0.5), (near, 0.1), (exact, 0.0)):
        gap.add(one, one + np.float32(off))
    ranks = [gap.distance().rank for gap in (lost, far, near, exact)]
    assert ranks == sorted(ranks)
    assert ranks[0] == -math.inf
    assert ranks[-1] == math.inf


def test_answers_that_end_early_are_no_comparison(graphs: LayerGraphs) -> None:
    layers = graphs.layers[:1]
    floats = list(run_tapped(graphs.float_results(layers), samples(3), exact=True))
    with pytest.raises(ValueError, match="shorter"):
        compare(layers, floats, floats[:2])
