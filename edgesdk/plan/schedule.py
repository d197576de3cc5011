"""Order a graph so that it runs in few parts: list scheduling over labels.

A part of a bundle has to be convex: nothing may leave it and come back, or no order of the
parts would exist. Here that holds by construction. Nodes are taken one after the other, each
once all it reads is there, and as long as any with the current label can be taken it is; every
run of one label is a part, and the runs are the chain.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass

__all__ = ["Run", "producers_of", "schedule"]


@dataclass(frozen=True, slots=True)
class Run:
    """Nodes that run one after the other under one label, in an order that works."""

    label: str
    nodes: tuple[int, ...]


def producers_of(
    reads: Mapping[int, Sequence[Hashable]], gives: Mapping[int, Sequence[Hashable]]
) -> dict[int, tuple[int, ...]]:
    """Say, by node, which nodes make what it reads.

    Indices are in an order that works, so only an earlier node counts.
    """
    maker = {name: index for index, names in gives.items() for name in names}
    return {
        index: tuple(
            dict.fromkeys(maker[name] for name in names if maker.get(name, index) < index)
        )
        for index, names in reads.items()
    }


def schedule(labels: Mapping[int, str], producers: Mapping[int, Sequence[int]]) -> list[Run]:
    """Give the runs of the shortest chain that starts with any of the labels.

    Args:
        labels: Label by node, in the order of the graph.
        producers: By node, the nodes it reads from; without cycles.

    Returns:
        Runs in the order in which they work. Going on with a label as long as possible gives
        the fewest runs with two labels; with more, the next one is that which gets furthest.
    """
    ready = [index for index in labels if not producers.get(index)]
    firsts = dict.fromkeys(labels[index] for index in ready)
    chains = [_chain(first, labels, producers) for first in firsts]
    return min(chains, key=len) if chains else []


def _chain(
    first: str, labels: Mapping[int, str], producers: Mapping[int, Sequence[int]]
) -> list[Run]:
    waits = {index: len(producers.get(index, ())) for index in labels}
    readers: dict[int, list[int]] = {index: [] for index in labels}
    for index, makers in producers.items():
        for maker in makers:
            readers[maker].append(index)
    ready: dict[str, set[int]] = {}
    for index, count in waits.items():
        if not count:
            ready.setdefault(labels[index], set()).add(index)
    runs: list[Run] = []
    label = first
    while ready:
        taken, waits_less = _exhaust(label, labels, readers, waits, ready.pop(label))
        runs.append(Run(label, tuple(sorted(taken))))
        for index, count in waits_less.items():
            waits[index] -= count
            if not waits[index] and labels[index] != label:
                ready.setdefault(labels[index], set()).add(index)
        # on a tie, the label of the earliest node
        label = max(
            sorted(ready, key=lambda each: min(ready[each])),
            key=lambda each: _reach(each, labels, readers, waits, ready),
            default="",
        )
    return runs


def _reach(
    label: str,
    labels: Mapping[int, str],
    readers: Mapping[int, Sequence[int]],
    waits: Mapping[int, int],
    ready: Mapping[str, set[int]],
) -> int:
    if len(ready) < 2:
        return 0
    return len(_exhaust(label, labels, readers, waits, ready[label])[0])


def _exhaust(
    label: str,
    labels: Mapping[int, str],
    readers: Mapping[int, Sequence[int]],
    waits: Mapping[int, int],
    ready: set[int],
) -> tuple[list[int], dict[int, int]]:
    """Take all nodes of ``label`` that can be taken; say by node how much less it waits for."""
    front = list(ready)
    taken: list[int] = []
    waits_less: dict[int, int] = {}
    while front:
        index = front.pop()
        taken.append(index)
        for reader in readers[index]:
            waits_less[reader] = waits_less.get(reader, 0) + 1
            if waits_less[reader] == waits[reader] and labels[reader] == label:
                front.append(reader)
    return taken, waits_less
