"""Foretell which operators of a TFLite graph the compiler maps: its limits, and one part only.

A file with an operator of a later version than its reader knows it does not read at all, nor
does it take one in which the size of a tensor is worked out when it runs. Others it hands to
TFLite's partitioning, which walks the graph as far as operators of one sort (taken, or not) go,
then as far as those of the other, and so on; of the runs of taken ones the compiler keeps the
first. So an operator that is not taken does not strand what does not depend on it, and a first
operator that is not taken (the quantizing of a float input) strands nothing.
"""

from __future__ import annotations

import heapq
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from edgesdk.backends.edgetpu.limits import Objection, object_to
from edgesdk.model.tflite_graph import TfliteGraph, TfliteOp
from edgesdk.profiles.compiler_values import CompilerRules

__all__ = ["count_statuses", "first_run", "foretell", "is_compiled", "runs", "say"]


def is_compiled(graph: TfliteGraph, rules: CompilerRules) -> bool:
    """Say whether the compiler has been at a file before."""
    return any(op.is_custom and op.name == rules.compiled_op for op in graph.ops)


def foretell(graph: TfliteGraph, rules: CompilerRules) -> dict[int, Objection]:
    """Say which operators are not mapped, by index, and why."""
    if is_compiled(graph, rules):
        return {
            op.index: Objection(kind="subgraph", seen="the compiler left it out")
            for op in graph.ops
            if not (op.is_custom and op.name == rules.compiled_op)
        }
    if whole := _unknown(graph, rules) or _open(graph, rules):
        return whole
    found: dict[int, Objection] = {}
    for op in graph.ops:
        objection = object_to(graph, op, rules)
        if objection is not None:
            found[op.index] = objection
    makers = graph.producers()
    needs = {op.index: {makers[i] for i in op.inputs if i in makers} for op in graph.ops}
    kept = first_run(needs, found)
    for op in graph.ops:
        if op.index not in kept and op.index not in found:
            found[op.index] = Objection(kind="subgraph", seen="behind one that is not mapped")
    return found


def _unknown(graph: TfliteGraph, rules: CompilerRules) -> dict[int, Objection]:
    """Object to every operator where one of them is of a version that its reader lacks."""
    known = rules.versions
    late = [op for op in graph.ops if not op.is_custom and op.version > known.get(op.name, 0)]
    if not late:
        return {}
    found = {}
    for op in graph.ops:
        seen = f"it reads no file with {late[0].name} of version {late[0].version}"
        if op in late:
            past = f"past {known[op.name]}" if op.name in known else "which it does not know"
            seen = f"version {op.version}, {past}"
        found[op.index] = Objection(kind="version", seen=seen)
    return found


def _open(graph: TfliteGraph, rules: CompilerRules) -> dict[int, Objection]:
    """Object to every operator where the size of some tensor is worked out when it runs."""
    late = next((op for op in graph.ops if _is_open(graph, op, rules)), None)
    if late is None:
        return {}
    own = "the size of what it gives is worked out when it runs"
    others = f"it takes no file in which a size is worked out, as {late.name}'s is"
    return {
        op.index: Objection(kind="limit", seen=own if op is late else others)
        for op in graph.ops
    }


def _is_open(graph: TfliteGraph, op: TfliteOp, rules: CompilerRules) -> bool:
    places = None if op.is_custom else rules.sized_by.get(op.name)
    if places is None:
        return False
    read = [op.inputs[place] for place in places if place < len(op.inputs)]
    return not places or any(
        index >= 0 and graph.tensors[index].constant is None for index in read
    )


def first_run(needs: Mapping[int, Collection[int]], refused: Collection[int]) -> frozenset[int]:
    """Give the first run of nodes that are not refused.

    Args:
        needs: By node, in the order of execution, the nodes whose results it takes.
        refused: Nodes that are not taken.
    """
    return next((run for taken, run in runs(needs, refused) if taken), frozenset())


def runs(
    needs: Mapping[int, Collection[int]], refused: Collection[int]
) -> Iterator[tuple[bool, frozenset[int]]]:
    """Give the runs of nodes of one sort, in their order, each as long as it gets.

    Args:
        needs: By node, in the order of execution, the nodes whose results it takes.
        refused: Nodes that are not taken.

    Yields:
        Whether the run is of nodes that are taken, and the nodes.
    """
    waits: dict[int, int] = {}
    readers: dict[int, list[int]] = {}
    ready: dict[bool, list[int]] = {True: [], False: []}
    order = {index: place for place, index in enumerate(needs)}
    names = list(needs)
    for index, makers in needs.items():
        others = {maker for maker in makers if maker != index and maker in order}
        waits[index] = len(others)
        for maker in others:
            readers.setdefault(maker, []).append(index)
        if not others:
            heapq.heappush(ready[index not in refused], order[index])
    # the first node that is ready decides of which sort the first run is
    taken = bool(ready[True]) and (not ready[False] or ready[True][0] < ready[False][0])
    while ready[True] or ready[False]:
        run = set()
        while ready[taken]:
            index = names[heapq.heappop(ready[taken])]
            run.add(index)
            for reader in readers.get(index, ()):
                waits[reader] -= 1
                if not waits[reader]:
                    heapq.heappush(ready[reader not in refused], order[reader])
        if run:
            yield taken, frozenset(run)
        taken = not taken


def say(objection: Objection, rules: CompilerRules) -> str:
    """Put an objection into words: the compiler's own, and what was seen."""
    return f"{rules.statuses[objection.kind]}: {objection.seen}"


def count_statuses(
    graph: TfliteGraph, objections: Mapping[int, Objection]
) -> list[dict[str, Any]]:
    """Count operators by name and kind of status, as the compiler's log does."""
    counts: dict[tuple[str, str], int] = {}
    for op in graph.ops:
        objection = objections.get(op.index)
        key = op.name, "mapped" if objection is None else objection.kind
        counts[key] = counts.get(key, 0) + 1
    return [
        {"op": op, "status": status, "count": count}
        for (op, status), count in sorted(counts.items())
    ]
