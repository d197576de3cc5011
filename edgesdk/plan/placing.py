"""Give every node a backend and the graph its parts: which islands are worth their boundaries.

Every node starts on the best backend that takes it. What that leaves behind is often an
accelerator's island of a few nodes in the middle of others, which costs two copies and a launch
and saves less. So runs of nodes move to another backend wherever the whole gets cheaper by the
figures of the profile, the smallest first, and each that moved is remembered with both sums.
Pure; nothing is read, written or run.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from edgesdk.backends.base import Backend
from edgesdk.model.values import NodeFacts
from edgesdk.plan.cost import node_us
from edgesdk.plan.islands import Island, give_up_islands
from edgesdk.plan.schedule import producers_of, schedule
from edgesdk.plan.weighing import Graph
from edgesdk.tensors import TensorInfo

__all__ = ["Island", "Placed", "PlacedPart", "Unplaced", "group_of", "place"]

#: One backend for all has to be cheaper by this much to be worth leaving the profile's order.
_WORTH = 0.01


class Unplaced(Exception):
    """Nodes that no backend takes, by index."""

    def __init__(self, nodes: Sequence[int]) -> None:
        super().__init__(f"no backend takes nodes {list(nodes)}")
        self.nodes = tuple(nodes)


@dataclass(frozen=True, slots=True, kw_only=True)
class PlacedPart:
    """One part: its backend, its nodes, and what goes in and out of it by name."""

    backend: str
    nodes: tuple[int, ...]
    reads: tuple[str, ...]
    gives: tuple[str, ...]
    boundary_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Placed:
    """Where nodes run. Times are microseconds by the figures of the profile."""

    backends: Mapping[int, str]
    parts: tuple[PlacedPart, ...]
    islands: tuple[Island, ...]
    node_us: Mapping[int, float]
    launches_us: float
    copies_us: float

    @property
    def total_us(self) -> float:
        """All nodes, launches and copies."""
        return sum(self.node_us.values()) + self.launches_us + self.copies_us


def group_of(backends: Sequence[Backend]) -> dict[str, str]:
    """Say, by backend, which one's file it shares.

    A backend that leaves what it refuses to another in the same file (`Backend.rest_kind`)
    shares with the first of that kind; every other one has files of its own.
    """
    first_of_kind: dict[str, str] = {}
    for backend in backends:
        first_of_kind.setdefault(backend.profile.kind, backend.profile.id)
    return {
        each.profile.id: first_of_kind.get(each.rest_kind, each.profile.id) for each in backends
    }


def place(
    nodes: Mapping[int, NodeFacts],
    backends: Sequence[Backend],
    refusals: Mapping[str, Mapping[int, str]],
    *,
    precisions: Mapping[int, str],
    outputs: Collection[str],
    constants: Collection[str] = (),
) -> Placed:
    """Place every node and cut the graph into parts.

    Args:
        nodes: The graph as it will be built, by index, in an order that works.
        backends: Best first.
        refusals: By backend id, the nodes it does not take.
        precisions: What each node computes in, by index.
        outputs: Names of the graph's outputs.
        constants: Names of tensors that are known before the graph runs.

    Raises:
        Unplaced: Some nodes are taken by no backend.
    """
    by_id = {backend.profile.id: backend for backend in backends}
    if not nodes:
        return _nothing_to_run(backends, outputs)
    takes = {
        index: tuple(name for name in by_id if index not in refusals.get(name, {}))
        for index in nodes
    }
    lost = [index for index, names in takes.items() if not names]
    if lost:
        raise Unplaced(lost)
    known = set(constants)
    for node in nodes.values():
        flags = zip(node.inputs, node.constant_inputs, strict=False)
        known.update(name for name, constant in flags if constant)
    graph = Graph(
        nodes=nodes,
        backends=by_id,
        takes=takes,
        times={
            index: {
                name: node_us(node, by_id[name].profile, precisions.get(index, "fp32"))
                for name in takes[index]
            }
            for index, node in nodes.items()
        },
        producers=producers_of(
            {
                index: [n for n in (*node.inputs, *node.captures) if n]
                for index, node in nodes.items()
            },
            {index: [n for n in node.outputs if n] for index, node in nodes.items()},
        ),
        tensors=_tensors(nodes),
        precisions=precisions,
        outputs=outputs,
        constants=known,
    )
    placed = {index: names[0] for index, names in takes.items()}
    best, islands = give_up_islands(graph, placed)
    best, islands = _try_one_backend(graph, best, islands)
    summed = graph.sum_up(best)
    return Placed(
        backends=best,
        parts=_parts(graph, best, group_of(backends)),
        islands=tuple(islands),
        node_us={index: graph.times[index][name] for index, name in best.items()},
        launches_us=summed.launches,
        copies_us=summed.copies,
    )


def _nothing_to_run(backends: Sequence[Backend], outputs: Collection[str]) -> Placed:
    """Place a graph of constants: on the processor, where there is a choice."""
    last = min(backends, key=lambda backend: backend.profile.accelerator)
    part = PlacedPart(
        backend=last.profile.id, nodes=(), reads=(), gives=tuple(outputs), boundary_bytes=0
    )
    return Placed(
        backends={}, parts=(part,), islands=(), node_us={}, launches_us=0.0, copies_us=0.0
    )


def _tensors(nodes: Mapping[int, NodeFacts]) -> dict[str, TensorInfo]:
    found: dict[str, TensorInfo] = {}
    for node in nodes.values():
        for value in (*node.input_types, *node.output_types):
            if value is not None:
                found[value.name] = value
    return found


def _try_one_backend(
    graph: Graph, placed: dict[int, str], islands: list[Island]
) -> tuple[dict[int, str], list[Island]]:
    """See whether the whole graph on one backend is cheaper than what was found."""
    if len(set(placed.values())) < 2:
        return placed, islands
    now = graph.sum_up(placed)
    for name in graph.backends:
        if not all(name in names for names in graph.takes.values()):
            continue
        alone = dict.fromkeys(placed, name)
        summed = graph.sum_up(alone)
        if summed.whole < now.whole * (1 - _WORTH):
            given_up = [
                Island(
                    backend=run.label,
                    nodes=run.nodes,
                    saves_us=sum(
                        graph.times[i][name] - graph.times[i][run.label] for i in run.nodes
                    ),
                    costs_us=now.launches + now.copies - summed.launches - summed.copies,
                )
                for run in now.runs
                if run.label != name
            ]
            islands = [*islands, *given_up]
            placed, now = alone, summed
    return placed, islands


def _parts(
    graph: Graph, placed: Mapping[int, str], groups: Mapping[str, str]
) -> tuple[PlacedPart, ...]:
    runs = schedule({i: groups[name] for i, name in placed.items()}, graph.producers)
    where = {index: number for number, run in enumerate(runs) for index in run.nodes}
    parts = []
    order = list(graph.backends)
    for number, run in enumerate(runs):
        made = dict.fromkeys(n for i in run.nodes for n in graph.nodes[i].outputs if n)
        wanted = dict.fromkeys(name for i in run.nodes for name in graph.reads(i))
        reads = tuple(name for name in wanted if name not in made)
        gives = tuple(
            name
            for name in made
            if name in graph.outputs
            or any(where[reader] != number for reader in graph.readers.get(name, ()))
        )
        parts.append(
            PlacedPart(
                # the best of the backends that share the file speaks for it
                backend=min({placed[i] for i in run.nodes}, key=order.index),
                nodes=run.nodes,
                reads=reads,
                gives=gives,
                boundary_bytes=sum(graph.size(name) for name in (*reads, *gives)),
            )
        )
    return tuple(parts)
