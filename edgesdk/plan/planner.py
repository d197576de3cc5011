"""Make the plan. Pure functions: nothing is read, written or run."""

from __future__ import annotations

from collections.abc import Sequence

from edgesdk.backends import Backend, ModelFacts, Refusal, backend_for
from edgesdk.errors import PlacementError, RecipeError
from edgesdk.model.nodes import node_facts
from edgesdk.model.open import OpenedModel
from edgesdk.model.tflite import OpenedTflite
from edgesdk.model.values import NodeFacts
from edgesdk.plan.asbuilt import as_built
from edgesdk.plan.eightbits import why_left
from edgesdk.plan.memory import predict_memory_bytes
from edgesdk.plan.recipe import Recipe
from edgesdk.plan.values import BuildPlan, PlannedNode, PlannedPart
from edgesdk.profiles.values import BackendProfile, TargetProfile
from edgesdk.quantize.keep import why_not_kept
from edgesdk.quantize.scope import why_not_converted

__all__ = ["model_facts", "plan_build"]


def model_facts(opened: OpenedModel | OpenedTflite) -> ModelFacts:
    """Give what the planner looks at in a model that was opened."""
    nodes = opened.ops if isinstance(opened, OpenedTflite) else node_facts(opened.ir)
    return ModelFacts(source=opened.source, nodes=nodes)


def plan_build(model: ModelFacts, profile: TargetProfile, recipe: Recipe) -> BuildPlan:
    """Decide for every node where it runs, and record why not elsewhere.

    The bundle has one part: the first backend, best first, that takes every node. A better
    backend that takes only some of them refuses those with its own reason, and the rest because
    it does not take the whole graph.

    Raises:
        RecipeError: The recipe names a backend that the target does not have, or a node to keep
            in float that the model does not have.
        PlacementError: No backend takes every node.
    """
    backends = [backend_for(entry, model) for entry in order_backends(profile, recipe)]
    reasons = {backend.profile.id: _reasons(backend, model.nodes) for backend in backends}
    chosen = next((b for b in backends if not any(reasons[b.profile.id])), None)
    if chosen is None:
        raise _nothing_takes_it(model, profile, backends, reasons)
    better = backends[: backends.index(chosen)]
    precision = _precision(model, chosen.profile, recipe)
    _refuse_unknown_names(model, recipe.keep_float)
    whys, constants = _whys(model, chosen.profile, precision, recipe)
    nodes = [
        PlannedNode(
            index=node.index,
            name=node.name,
            op=node.op,
            backend=chosen.profile.id,
            precision=precision if whys[node.index] is None else "fp32",
            refusals=_refusals(node, better, reasons),
            why_float=whys[node.index],
        )
        for node in model.nodes
    ]
    part = PlannedPart(
        index=0,
        backend=chosen.profile.id,
        runtime=chosen.profile.runtime,
        format=chosen.part_format(),
        precision=precision,
        nodes=tuple(node.index for node in model.nodes),
    )
    return BuildPlan(
        model=model.source.name,
        model_sha256=model.source.sha256,
        target=profile.name,
        target_sha256=profile.digest,
        recipe_sha256=recipe.sha256,
        precision=precision,
        steps=_steps(model, precision),
        nodes=tuple(nodes),
        parts=(part,),
        memory_bytes=predict_memory_bytes(
            model, {node.index: node.precision for node in nodes}, constants
        ),
        assumed=profile.assumed,
    )


def order_backends(profile: TargetProfile, recipe: Recipe) -> list[BackendProfile]:
    """Give the target's backends, best first, as the recipe wants them.

    Raises:
        RecipeError: The recipe names a backend that the target does not have, or avoids all.
    """
    by_id = {entry.id: entry for entry in profile.backends}
    for name in (*recipe.prefer, *recipe.avoid):
        if name not in by_id:
            raise RecipeError(
                f"cannot plan for {profile.name}: it has no backend {name!r}",
                hint=f"its backends are {', '.join(by_id)}",
                backend=name,
            )
    first = [by_id[name] for name in recipe.prefer]
    rest = [entry for entry in profile.backends if entry.id not in recipe.prefer]
    kept = [entry for entry in (*first, *rest) if entry.id not in recipe.avoid]
    if not kept:
        raise RecipeError(
            f"cannot plan for {profile.name}: the recipe avoids every backend",
            hint=f"leave one of {', '.join(by_id)}",
        )
    return kept


def _reasons(backend: Backend, nodes: Sequence[NodeFacts]) -> list[str | None]:
    found = [backend.why_not(node) for node in nodes]
    return found if any(found) else []


def _precision(model: ModelFacts, backend: BackendProfile, recipe: Recipe) -> str:
    if model.source.format == "tflite":
        return "as-is"
    wanted = recipe.precision or "fp32"
    if wanted == "auto":
        return wanted
    if wanted not in backend.precisions:
        raise RecipeError(
            f"cannot build {wanted} for {backend.id}: it runs {', '.join(backend.precisions)}",
            hint=f"build with --precision {backend.precisions[0]}",
            backend=backend.id,
        )
    return wanted


def _refuse_unknown_names(model: ModelFacts, keep_float: Sequence[str]) -> None:
    """Refuse names to keep in float that the model does not have.

    Not where nodes have bodies, whose nodes may be meant and are not in the facts, nor for a
    TFLite file, of which nothing is converted.
    """
    if model.source.format == "tflite":
        return
    bodies = [op for node in model.nodes for op in node.subgraph_ops]
    if bodies and not isinstance(keep_float, str):
        return
    wrong = why_not_kept(
        keep_float, [node.name for node in model.nodes], {node.op for node in model.nodes}
    )
    if wrong is not None:
        raise RecipeError(
            f"cannot plan for {model.source.name} with this keep_float: {wrong[0]}",
            hint=wrong[1],
        )


def _whys(
    model: ModelFacts, backend: BackendProfile, precision: str, recipe: Recipe
) -> tuple[dict[int, str | None], set[str]]:
    """Say of every node why it stays in float, or None; give the names of all constants."""
    indices = [node.index for node in model.nodes]
    if precision in ("fp32", "as-is"):
        return dict.fromkeys(indices), set()
    rules = None if backend.scheme is None else backend.scheme.rules
    whole = precision in ("int8", "int16x8", "auto") and rules is not None
    outputs = {value.name for value in model.source.outputs}
    built = as_built(model.nodes, outputs, joins_bias=whole, keep=recipe.keep_float)
    if whole and rules is not None:
        found = why_left(
            built.nodes,
            rules,
            keep_float=recipe.keep_float,
            inputs={value.name for value in model.source.inputs},
            outputs=outputs,
        )
    else:
        found = {
            index: why_not_converted(node, precision, rules, recipe.keep_float)
            for index, node in built.nodes.items()
        }
    whys = {}
    for index in indices:
        gone = built.gone.get(index)
        whys[index] = found[built.host(index)] if gone is None else gone
    return whys, built.constants


def _refusals(
    node: NodeFacts, better: Sequence[Backend], reasons: dict[str, list[str | None]]
) -> tuple[Refusal, ...]:
    refusals = []
    for backend in better:
        mine = reasons[backend.profile.id]
        reason = mine[node.index]
        if reason is None:
            count = sum(entry is not None for entry in mine)
            reason = f"takes this node, but not {count} of the graph's {len(mine)}"
        refusals.append(Refusal(backend=backend.profile.id, reason=reason))
    return tuple(refusals)


def _steps(model: ModelFacts, precision: str) -> tuple[str, ...]:
    if model.source.format == "tflite":
        return ("check", "bundle")
    if precision == "fp32":
        return ("simplify", "fit-opset", "check", "bundle")
    return ("simplify", "quantize", "fit-opset", "check", "bundle")


def _nothing_takes_it(
    model: ModelFacts,
    profile: TargetProfile,
    backends: Sequence[Backend],
    reasons: dict[str, list[str | None]],
) -> PlacementError:
    # the backend that comes nearest tells the user most
    nearest = min(backends, key=lambda b: sum(r is not None for r in reasons[b.profile.id]))
    mine = reasons[nearest.profile.id]
    index, reason = next((i, r) for i, r in enumerate(mine) if r is not None)
    node = model.nodes[index]
    label = f"node {index}" + (f" {node.name!r}" if node.name else "")
    count = sum(r is not None for r in mine)
    return PlacementError(
        f"cannot place {model.source.name} on {profile.name}: {label} ({node.op}): "
        f"{nearest.profile.id}: {reason}",
        hint=f"{count} of {len(mine)} nodes are refused by {nearest.profile.id}, which comes "
        f"nearest; replace those operators, or choose another target",
        node=index,
        op=node.op,
        refused=count,
    )
