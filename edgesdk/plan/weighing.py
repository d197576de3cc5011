"""What a placement costs: nodes, launches and copies, by the figures of the profile.

Copies are a sum over tensors, each with one maker and its readers, so a change of a few nodes
can be weighed by the tensors that they touch.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from edgesdk.backends.base import Backend
from edgesdk.model.values import NodeFacts
from edgesdk.plan.cost import copy_us, launch_us
from edgesdk.plan.memory import tensor_bytes
from edgesdk.plan.schedule import Run, schedule
from edgesdk.tensors import TensorInfo

__all__ = ["Cost", "Graph"]


@dataclass(frozen=True, slots=True)
class Cost:
    """The runs of a placement, and what they cost in microseconds."""

    runs: tuple[Run, ...]
    nodes: float
    launches: float
    copies: float

    @property
    def whole(self) -> float:
        """All of it."""
        return self.nodes + self.launches + self.copies


@dataclass(slots=True)
class Graph:
    """A graph as the search for a placement sees it.

    Attributes:
        nodes: By index, in an order that works.
        backends: By id, best first.
        takes: By node, the backends that take it, best first.
        times: By node and backend that takes it, microseconds.
        producers: By node, the nodes it reads from.
        tensors: What is known of values, by name.
        precisions: What each node computes in.
        outputs: Names of the graph's outputs.
        constants: Names of what is known before the graph runs.
        sums: How many placements were summed up so far.
    """

    nodes: Mapping[int, NodeFacts]
    backends: Mapping[str, Backend]
    takes: Mapping[int, tuple[str, ...]]
    times: Mapping[int, Mapping[str, float]]
    producers: Mapping[int, tuple[int, ...]]
    tensors: Mapping[str, TensorInfo]
    precisions: Mapping[int, str]
    outputs: Collection[str]
    constants: Collection[str]
    sums: int = 0
    makers: dict[str, int] = field(init=False)
    readers: dict[str, list[int]] = field(init=False)

    def __post_init__(self) -> None:
        """Look up who makes and who reads each value."""
        self.makers = {name: i for i in self.nodes for name in self.nodes[i].outputs if name}
        self.readers = {}
        for index in self.nodes:
            for name in dict.fromkeys(self.reads(index)):
                self.readers.setdefault(name, []).append(index)

    def reads(self, index: int) -> list[str]:
        """Give the values that reach a node when the graph runs."""
        node = self.nodes[index]
        return [n for n in (*node.inputs, *node.captures) if n and n not in self.constants]

    def touched(self, indices: Iterable[int]) -> list[str]:
        """Give the values that some nodes read or make, each once."""
        found: dict[str, None] = {}
        for index in indices:
            found.update(dict.fromkeys(self.reads(index)))
            found.update(dict.fromkeys(name for name in self.nodes[index].outputs if name))
        return list(found)

    def size(self, name: str) -> int:
        """Say how many bytes a value has, in the precision of the node that makes it."""
        value = self.tensors.get(name)
        maker = self.makers.get(name)
        precision = "" if maker is None else self.precisions.get(maker, "")
        return 0 if value is None else tensor_bytes(value, precision)

    def launch(self, backend: str) -> float:
        """Say what one call of a backend costs."""
        return launch_us(self.backends[backend].profile)

    def sum_up(self, placed: Mapping[int, str]) -> Cost:
        """Order a placement and say what it costs."""
        self.sums += 1
        runs = tuple(schedule(placed, self.producers))
        where = {index: number for number, run in enumerate(runs) for index in run.nodes}
        labels = [run.label for run in runs]
        names = dict.fromkeys((*self.readers, *self.makers))
        return Cost(
            runs,
            sum(self.times[index][backend] for index, backend in placed.items()),
            sum(self.launch(label) for label in labels),
            self.copies(names, where, labels),
        )

    def copies(
        self, names: Iterable[str], where: Mapping[int, int], labels: Sequence[str]
    ) -> float:
        """Say what it costs to bring values from run to run.

        Args:
            names: The values.
            where: The number of each node's run.
            labels: The backend of each run, by its number.
        """
        spent = 0.0
        for name in names:
            maker = self.makers.get(name)
            source = None if maker is None else where[maker]
            places = {where[index] for index in self.readers.get(name, ())} - {source}
            comes_back = source is not None and (bool(places) or name in self.outputs)
            if not places and not comes_back:
                continue
            size = self.size(name)
            ends = [*places, *([source] if source is not None and comes_back else [])]
            spent += sum(copy_us(size, self.backends[labels[end]].profile) for end in ends)
        return spent
