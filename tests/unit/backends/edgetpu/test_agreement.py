"""What is said of ONNX nodes before there is a file, beside what the file itself is said to do.

Graphs are drawn at random, quantized and lowered. The plan's word on a node and the compiler's
rules on the operator it became have to agree, up to the few nodes that the lowering computes in
float though the pairs around them would allow for integers.
"""

from __future__ import annotations

import random
import warnings

import numpy as np
import onnx_ir as ir
import pytest
from onnx.backend.test.case.node import collect_testcases

from edgesdk.backends import ModelFacts, backend_for
from edgesdk.backends.edgetpu.mapping import foretell
from edgesdk.model.kernels import kernel_graph
from edgesdk.model.nodes import node_facts
from tests.unit.backends.edgetpu.test_onnx import (
    PROFILE,
    RULES,
    lowered_for_it,
    network,
    source_of,
    weights,
)
from tests.unit.backends.litert.graphs import build

GRAPHS = 40
POOLS = (
    "MaxPool<kernel_shape=[3,3], pads=[1,1,1,1], strides=[1,1]>",
    "AveragePool<kernel_shape=[3,3], pads=[1,1,1,1], strides=[1,1]>",
)
ALONE = ("Relu", "Sigmoid", "Tanh", "HardSwish", "Exp", "Softmax<axis=1>", *POOLS)
STEPS = (*ALONE, "Conv", "Conv", "Conv", "Add", "Mul", "Div", "Concat")


class Graph:
    """A graph in the making: lines of ONNX's text form, constants, and values by name."""

    def __init__(self, seed: int) -> None:
        self.choose = random.Random(seed)
        self.lines: list[str] = []
        self.constants: dict[str, np.ndarray] = {}
        self.values = [("x", 3)]
        self.conv(*self.values[-1])
        for _ in range(self.choose.randrange(3, 9)):
            late = self.choose.random() < 0.7
            value = self.values[-1] if late else self.choose.choice(self.values[1:])
            self.step(self.choose.choice(STEPS), *value)
        self.lines.append(f"y = Relu({self.values[-1][0]})")

    def give(self, line: str, channels: int) -> None:
        name = f"v{len(self.values)}"
        self.lines.append(f"{name} = {line}")
        self.values.append((name, channels))

    def constant(self, array: np.ndarray) -> str:
        name = f"w{len(self.constants)}"
        self.constants[name] = array
        return name

    def conv(self, value: str, channels: int) -> None:
        given, size = self.choose.choice((4, 8)), self.choose.choice((1, 3))
        kernel = self.constant(weights(given, channels, size, size))
        pads = ",".join([str(size // 2)] * 4)
        self.give(
            f"Conv<kernel_shape=[{size},{size}], pads=[{pads}]>({value}, {kernel})", given
        )

    def step(self, op: str, value: str, channels: int) -> None:
        alike = [name for name, count in self.values[1:] if count == channels]
        if op == "Conv":
            self.conv(value, channels)
        elif op == "Concat":
            other, more = self.choose.choice(self.values[1:])
            self.give(f"Concat<axis=1>({value}, {other})", channels + more)
        elif op in ("Add", "Mul") and self.choose.random() < 0.5:
            self.give(f"{op}({value}, {self.choose.choice(alike)})", channels)
        elif op in ("Add", "Mul", "Div"):
            factors = self.constant(np.abs(weights(1, channels, 1, 1)) + 1)
            self.give(f"{op}({value}, {factors})", channels)
        else:
            self.give(f"{op}({value})", channels)


def compare(seed: int) -> tuple[int, list[str]]:
    """Count the nodes that became an operator of their own, and list those in dispute."""
    made = Graph(seed)
    model = network(" ".join(made.lines), **made.constants)
    kernels = kernel_graph(model)
    floats = {index: "in float" for index in kernels.nodes if index not in kernels.quantized}
    facts = ModelFacts(
        source=source_of(model), nodes=tuple(kernels.nodes.values()), floats=floats
    )
    refused = {**floats, **backend_for(PROFILE, facts).refusals(facts)}
    graph = lowered_for_it(model)
    left = foretell(graph, RULES)
    makers = {graph.tensors[op.outputs[0]].name: op.index for op in graph.ops}
    asked = {
        i: makers[n.outputs[0]] for i, n in kernels.nodes.items() if n.outputs[0] in makers
    }
    return len(asked), [
        f"{seed}: {kernels.nodes[index].op}, {refused.get(index, 'taken')}, in the file "
        f"{left[op].seen if op in left else 'mapped'}"
        for index, op in asked.items()
        if (index in refused) != (op in left)
    ]


@pytest.mark.slow
def test_the_plan_says_of_nodes_what_the_file_says_of_operators() -> None:
    counts, disputes = zip(*(compare(seed) for seed in range(GRAPHS)), strict=True)
    found = [each for dispute in disputes for each in dispute]
    assert sum(counts) > 4 * GRAPHS
    assert len(found) <= sum(counts) // 50, "\n".join(found)


@pytest.mark.slow
def test_every_operator_of_onnx_gets_an_answer() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # some cases overflow, divide by zero, on purpose
        cases = collect_testcases(None)
    empty = source_of(build("g (float[1] x) => (float[1] y) { y = Relu(x) }"))
    asked = 0
    for case in cases:
        model = ir.from_proto(case.model)
        facts = ModelFacts(source=empty, nodes=node_facts(model))
        answers = backend_for(PROFILE, facts).refusals(facts)
        assert set(answers) <= {node.index for node in facts.nodes}, case.name
        assert all(why.strip() for why in answers.values()), case.name
        asked += len(facts.nodes)
    assert asked > 10_000
