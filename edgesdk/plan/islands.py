"""Give up what is not worth its boundaries: move runs to another backend where that is cheaper.

A big graph can have hundreds of islands, and to sum up the whole for every one of them costs
minutes. So a run is weighed by what it touches: its nodes, its launch and that of its
neighbours in the chain, and the tensors at its border. All runs that gain are moved together,
as long as no two of them are neighbours, and the sum of the whole has the last word: where it
did not fall, half of the moves is tried, and so on. What only a new order of the graph would
show is then looked for run by run with whole sums, as far as a budget of node visits goes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from edgesdk.plan.schedule import Run
from edgesdk.plan.weighing import Cost, Graph

__all__ = ["Island", "give_up_islands"]

#: A move has to save this share of what the run costs where it is.
_WORTH = 0.01
#: Nodes that may be visited by whole sums in search of what local weighing does not see.
_MOST_VISITS = 200_000
_FEWEST_SUMS = 16
#: Rounds of moves; every one leaves fewer runs or a cheaper whole.
_MOST_ROUNDS = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Island:
    """Nodes that a backend would take and does not get, as they cost more than they save.

    ``saves_us`` is what computing them there would save, ``costs_us`` what launches and copies
    would cost more, both by the figures of the profile.
    """

    backend: str
    nodes: tuple[int, ...]
    saves_us: float
    costs_us: float


@dataclass(frozen=True, slots=True)
class _Move:
    """A run that may go to another backend, weighed by what it touches."""

    number: int
    run: Run
    backend: str
    island: Island
    own_us: float

    @property
    def gain(self) -> float:
        return self.island.costs_us - self.island.saves_us

    @property
    def is_worth_it(self) -> bool:
        return self.gain > _WORTH * self.own_us


def give_up_islands(
    graph: Graph, placed: Mapping[int, str]
) -> tuple[dict[int, str], list[Island]]:
    """Move runs to other backends while the whole gets cheaper.

    Args:
        graph: The graph and its figures.
        placed: Every node's backend to start with.

    Returns:
        Every node's backend, and what was given up on the way, in that order.
    """
    here = dict(placed)
    now = graph.sum_up(here)
    islands: list[Island] = []
    for _ in range(_MOST_ROUNDS):
        found = _move_many(graph, here, now) or _move_one(graph, here, now)
        if found is None:
            break
        here, now, moves = found
        islands += [move.island for move in moves]
    return here, islands


_Step = tuple[dict[int, str], Cost, Sequence[_Move]]


def _move_many(graph: Graph, placed: Mapping[int, str], now: Cost) -> _Step | None:
    """Move all runs that gain by themselves, the smallest first and no two side by side."""
    where = {index: number for number, run in enumerate(now.runs) for index in run.nodes}
    offers = [
        move
        for number in range(len(now.runs))
        if (move := _best_move(graph, now.runs, where, number)) is not None
    ]
    offers.sort(key=lambda move: move.own_us)
    chosen: dict[int, _Move] = {}
    for move in offers:
        if not {move.number - 1, move.number + 1} & chosen.keys():
            chosen[move.number] = move
    moves = list(chosen.values())
    while moves:
        changed = _moved(placed, moves)
        summed = graph.sum_up(changed)
        if summed.whole < now.whole:
            return changed, summed, moves
        moves = moves[: len(moves) // 2]
    return None


def _move_one(graph: Graph, placed: Mapping[int, str], now: Cost) -> _Step | None:
    """Look for one run whose move makes the whole cheaper in a new order of the graph."""
    most = max(_FEWEST_SUMS, _MOST_VISITS // len(graph.nodes))
    where = {index: number for number, run in enumerate(now.runs) for index in run.nodes}
    every = [
        move
        for number in range(len(now.runs) if len(now.runs) > 1 else 0)
        for move in _all_moves(graph, now.runs, where, number)
    ]
    for move in sorted(every, key=lambda each: each.own_us):
        if graph.sums >= most:
            return None
        changed = _moved(placed, [move])
        summed = graph.sum_up(changed)
        saved = now.whole - summed.whole
        if saved > _WORTH * move.own_us:
            island = Island(
                backend=move.run.label,
                nodes=move.run.nodes,
                saves_us=summed.nodes - now.nodes,
                costs_us=now.launches + now.copies - summed.launches - summed.copies,
            )
            return changed, summed, [_Move(move.number, move.run, "", island, move.own_us)]
    return None


def _moved(placed: Mapping[int, str], moves: Sequence[_Move]) -> dict[int, str]:
    changed = dict(placed)
    for move in moves:
        changed.update(dict.fromkeys(move.run.nodes, move.backend))
    return changed


def _best_move(
    graph: Graph, runs: Sequence[Run], where: Mapping[int, int], number: int
) -> _Move | None:
    if len(runs) < 2:
        return None
    good = [move for move in _all_moves(graph, runs, where, number) if move.is_worth_it]
    return max(good, key=lambda move: move.gain, default=None)


def _all_moves(
    graph: Graph, runs: Sequence[Run], where: Mapping[int, int], number: int
) -> list[_Move]:
    """Weigh a run on each other backend that takes all of it, by what it touches."""
    run = runs[number]
    offered = [
        name
        for name in graph.backends
        if name != run.label and all(name in graph.takes[index] for index in run.nodes)
    ]
    if not offered:
        return []
    labels = [each.label for each in runs]
    touched = graph.touched(run.nodes)
    copies = graph.copies(touched, where, labels)
    spent = sum(graph.times[index][run.label] for index in run.nodes)
    own = spent + copies + graph.launch(run.label)
    moves = []
    for name in offered:
        beside = [
            k for k in (number - 1, number + 1) if 0 <= k < len(runs) and labels[k] == name
        ]
        # a run joins a neighbour of its label, and two such neighbours become one
        stand = beside[0] if beside else number
        joined = dict.fromkeys(run.nodes, stand)
        for other in beside[1:]:
            joined.update(dict.fromkeys(runs[other].nodes, stand))
        there = labels if beside else [*labels[:number], name, *labels[number + 1 :]]
        copied = graph.copies(touched, {**where, **joined}, there)
        launched = graph.launch(name) * (1 - len(beside))
        moves.append(
            _Move(
                number,
                run,
                name,
                Island(
                    backend=run.label,
                    nodes=run.nodes,
                    saves_us=sum(graph.times[index][name] for index in run.nodes) - spent,
                    costs_us=graph.launch(run.label) - launched + copies - copied,
                ),
                own,
            )
        )
    return moves
