"""What is said of ONNX nodes before there is a file, beside what the file itself is said to do.

Graphs are drawn at random, quantized and lowered. The plan's word on a node and the compiler's
constraints on the operator it became have to agree, up to the few nodes that the lowering
computes in float though the pairs around them would allow for integers.
"""

from __future__ import annotations

import pytest

from edgesdk.backends import ModelFacts, backend_for
from edgesdk.backends.ethos_u.mapping import foretell
from edgesdk.model.kernels import kernel_graph
from edgesdk.profiles import find_target
from edgesdk.profiles.constraint_values import ConstraintRules
from tests.unit.backends.edgetpu.test_agreement import Graph
from tests.unit.backends.edgetpu.test_onnx import network, source_of
from tests.unit.backends.litert.graphs import lowered

GRAPHS = 25
PROFILES = [find_target(name).backends[0] for name in ("ethos-u55-128", "ethos-u85-256")]


def compare(seed: int, number: int) -> tuple[int, list[str]]:
    """Count the nodes that became an operator of their own, and list those in dispute."""
    profile = PROFILES[number]
    rules = profile.compiler
    assert isinstance(rules, ConstraintRules)
    core = rules.core_of(str(profile.options["accelerator"]))
    assert core is not None
    made = Graph(seed)
    model = network(" ".join(made.lines), **made.constants)
    kernels = kernel_graph(model)
    floats = {index: "in float" for index in kernels.nodes if index not in kernels.quantized}
    facts = ModelFacts(
        source=source_of(model), nodes=tuple(kernels.nodes.values()), floats=floats
    )
    refused = {**floats, **backend_for(profile, facts).refusals(facts)}
    graph = lowered(model)
    left = foretell(graph, rules, core)
    makers = {graph.tensors[op.outputs[0]].name: op.index for op in graph.ops}
    asked = {
        i: makers[n.outputs[0]] for i, n in kernels.nodes.items() if n.outputs[0] in makers
    }
    return len(asked), [
        f"{seed}: {kernels.nodes[index].op}, {refused.get(index, 'taken')}, in the file "
        f"{graph.ops[op].name}, {left.get(op, 'placed')}"
        for index, op in asked.items()
        if (index in refused) != (op in left)
    ]


@pytest.mark.slow
@pytest.mark.parametrize("number", [0, 1])
def test_the_plan_says_of_nodes_what_the_file_says_of_operators(number: int) -> None:
    counts, disputes = zip(*(compare(seed, number) for seed in range(GRAPHS)), strict=True)
    found = [each for dispute in disputes for each in dispute]
    assert sum(counts) > 4 * GRAPHS
    assert len(found) <= sum(counts) // 20, "\n".join(found)
