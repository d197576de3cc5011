"""Read from an opened model what the planner looks at."""

from __future__ import annotations

from dataclasses import replace

from edgesdk.backends import ModelFacts, backend_for
from edgesdk.errors import ModelError
from edgesdk.model.nodes import node_facts
from edgesdk.model.open import OpenedModel
from edgesdk.model.shapes import at_batch_one, folded_outputs, open_batch
from edgesdk.model.tflite import OpenedTflite
from edgesdk.model.values import NodeFacts
from edgesdk.plan.order import order_backends
from edgesdk.plan.recipe import Recipe
from edgesdk.profiles.values import TargetProfile

__all__ = ["model_facts"]


def model_facts(
    opened: OpenedModel | OpenedTflite,
    profile: TargetProfile | None = None,
    recipe: Recipe | None = None,
) -> ModelFacts:
    """Give what the planner looks at in a model that was opened.

    Args:
        opened: The model.
        profile: The target. Where its best backend takes the graph with open shapes, the graph
            is not looked at with fixed ones, which costs as much as simplifying it.
        recipe: What the user wants; it may make another backend of the target the best.

    Raises:
        RecipeError: The recipe names a backend that the target does not have, or avoids all.
    """
    if isinstance(opened, OpenedTflite):
        return ModelFacts(source=opened.source, nodes=opened.ops, tflite=opened.graph)
    nodes = node_facts(opened.ir)
    as_it_is = ModelFacts(source=opened.source, nodes=nodes)
    if profile is not None:
        first = order_backends(profile, recipe or Recipe())[0]
        best = backend_for(first, as_it_is)
        if not best.is_static and not best.refusals(as_it_is):
            return as_it_is
    graph, known = opened.ir, nodes
    if open_batch(opened.ir):
        try:
            graph = at_batch_one(opened.ir)
        except ModelError:  # a graph that contradicts it stays open, and backends say so
            return as_it_is
        known = node_facts(graph)
    folded = folded_outputs(graph)
    return ModelFacts(
        source=opened.source,
        nodes=nodes,
        fixed=tuple(_typed(node, seen) for node, seen in zip(nodes, known, strict=True)),
        folded=frozenset(
            node.index for node in nodes if node.outputs and set(node.outputs) <= folded
        ),
    )


def _typed(node: NodeFacts, fixed: NodeFacts) -> NodeFacts:
    return replace(node, input_types=fixed.input_types, output_types=fixed.output_types)
