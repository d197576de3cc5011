"""Make the plan. Pure functions: nothing is read, written or run.

It is long because a plan is one value: what is quantized, who takes what and where parts end
depend on each other, and are settled together here.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

from edgesdk.backends import Backend, ModelFacts, Refusal, backend_for
from edgesdk.errors import PlacementError, RecipeError
from edgesdk.model.values import NodeFacts
from edgesdk.plan.as_is import plan_as_is
from edgesdk.plan.asbuilt import AsBuilt, as_built
from edgesdk.plan.eightbits import why_left
from edgesdk.plan.facts import model_facts
from edgesdk.plan.memory import predict_memory_bytes, refuse_too_large
from edgesdk.plan.order import order_backends
from edgesdk.plan.placing import Placed, Unplaced, place
from edgesdk.plan.recipe import Recipe
from edgesdk.plan.values import BuildPlan, GivenUp, PlannedNode, PlannedPart
from edgesdk.profiles.values import BackendProfile, TargetProfile
from edgesdk.quantize.keep import why_not_kept
from edgesdk.quantize.scope import why_not_converted

__all__ = ["Options", "model_facts", "plan_build", "take_nodes"]

_EIGHT_BITS = ("int8", "int16x8", "auto")
_WHOLE_NUMBERS = frozenset({"int8", "int16x8"})


def plan_build(model: ModelFacts, profile: TargetProfile, recipe: Recipe) -> BuildPlan:
    """Decide for every node where it runs, and record why not elsewhere.

    A node goes to the best backend that takes it, unless it is part of an island that costs
    more in copies and launches than it saves by the profile's figures. What runs on one
    backend in one go is a part.

    Raises:
        RecipeError: The recipe names a backend that the target does not have, a precision that
            none of them has, or a node to keep in float that the model does not have.
        PlacementError: A node is taken by no backend, or the whole does not fit the memory.
    """
    entries = order_backends(profile, recipe)
    if model.source.format == "tflite":
        return plan_as_is(model, profile, entries, recipe_sha256=recipe.sha256)
    backends = [backend_for(entry, model) for entry in entries]
    precision = _precision(backends, recipe)
    _refuse_unknown_names(model, recipe.keep_float)
    chosen = _settle(model, profile, backends, precision, recipe)
    placed, built, whys = chosen.placed, chosen.built, chosen.whys
    known = {backend.profile.id: backend for backend in backends}
    given_up = tuple(
        GivenUp(
            backend=each.backend,
            nodes=each.nodes,
            saves_us=each.saves_us,
            costs_us=each.costs_us,
        )
        for each in placed.islands
    )
    stands_for = _stand_ins(model, built, placed)
    part_of = {i: number for number, part in enumerate(placed.parts) for i in part.nodes}
    members: dict[int, list[int]] = {number: [] for number in range(len(placed.parts))}
    where: dict[int, str] = {}
    for node in model.nodes:
        stand_in = stands_for[node.index]
        members[part_of.get(stand_in, 0) if stand_in is not None else 0].append(node.index)
        known_one = placed.backends.get(stand_in) if stand_in is not None else None
        where[node.index] = known_one or placed.parts[0].backend
    total = placed.total_us or 1.0
    nodes = tuple(
        PlannedNode(
            index=node.index,
            name=node.name,
            op=node.op,
            backend=where[node.index],
            precision=precision if whys[node.index] is None else "fp32",
            refusals=_refusals(built.host(node.index), where[node.index], chosen, given_up),
            why_float=whys[node.index],
            reads=node.reads,
            gives=tuple(name for name in node.outputs if name),
            share=placed.node_us.get(node.index, 0.0) / total,
        )
        for node in model.nodes
    )
    static = any(known[part.backend].is_static for part in placed.parts)
    facts = model.fixed if static and model.fixed else model.nodes
    memory_bytes = predict_memory_bytes(
        replace(model, nodes=facts),
        {node.index: node.precision for node in nodes},
        built.constants,
    )
    refuse_too_large(model.source.name, profile, memory_bytes)
    return BuildPlan(
        model=model.source.name,
        model_sha256=model.source.sha256,
        target=profile.name,
        target_sha256=profile.digest,
        recipe_sha256=recipe.sha256,
        precision=precision,
        steps=_steps(precision, [known[part.backend] for part in placed.parts]),
        nodes=nodes,
        parts=tuple(
            PlannedPart(
                index=index,
                backend=part.backend,
                runtime=known[part.backend].profile.runtime,
                format=known[part.backend].part_format(),
                precision=_part_precision(precision, part.nodes, whys),
                nodes=tuple(members[index]),
                reads=part.reads,
                gives=part.gives,
                boundary_bytes=part.boundary_bytes,
                share=sum(placed.node_us[i] for i in part.nodes) / total,
            )
            for index, part in enumerate(placed.parts)
        ),
        memory_bytes=memory_bytes,
        assumed=(*profile.assumed, *_assumed_speeds(placed, known)),
        given_up=given_up,
        share_by_backend=_shares(placed, total),
        overhead_share=(placed.launches_us + placed.copies_us) / total,
        fixed_inputs=_fixed_inputs(model) if static else (),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What each backend takes of a graph. ``refusals`` are by backend id, then by node."""

    refusals: Mapping[str, Mapping[int, str]]

    def count(self, backend: str) -> int:
        """How many nodes a backend refuses."""
        return len(self.refusals[backend])


@dataclass(frozen=True, slots=True, kw_only=True)
class _Settled:
    """A placement that agrees with the numbers it rests on."""

    placed: Placed
    built: AsBuilt
    whys: Mapping[int, str | None]
    options: Options
    order: tuple[str, ...] = field(default=())


def take_nodes(
    model: ModelFacts,
    backends: Sequence[Backend],
    precision: str,
    whys: Mapping[int, str | None],
) -> Options:
    """Ask every backend which of a graph's nodes it takes in a precision.

    Args:
        model: The graph, as it will be built.
        backends: Best first.
        precision: What is built.
        whys: Why a node stays in float in a build of another precision; None where it does not.
    """
    found: dict[str, dict[int, str]] = {}
    floats = {node.index: why for node in model.nodes if (why := whys.get(node.index))}
    model = replace(model, floats=floats)
    for backend in backends:
        profile = backend.profile
        if precision not in ("auto", *profile.precisions):
            reason = f"it runs {', '.join(profile.precisions)}, and this build is {precision}"
            found[profile.id] = {node.index: reason for node in model.nodes}
            continue
        refused = backend.refusals(model)
        if _WHOLE_NUMBERS.issuperset(profile.precisions):
            for index, why in floats.items():
                refused.setdefault(index, f"it stays in float: {why}")
        found[profile.id] = refused
    return Options(refusals=found)


def _settle(
    model: ModelFacts,
    profile: TargetProfile,
    backends: Sequence[Backend],
    precision: str,
    recipe: Recipe,
) -> _Settled:
    """Place by the numbers of the backend that owns the scheme, until that is the one placed.

    What is quantized depends on whose kernels it is for, and who takes what on the numbers.
    """
    by_id = {backend.profile.id: backend for backend in backends}
    owner = _likely_owner(model, backends, precision)
    settled: _Settled | None = None
    for _ in by_id:
        whys, built = _whys(model, owner.profile, precision, recipe)
        graph = replace(model, nodes=tuple(built.nodes.values()))
        options = take_nodes(graph, backends, precision, whys)
        precisions = {i: precision if whys.get(i) is None else "fp32" for i in built.nodes}
        try:
            placed = place(
                built.nodes,
                backends,
                options.refusals,
                precisions=precisions,
                outputs={value.name for value in model.source.outputs},
                constants=built.constants,
            )
        except Unplaced as exc:
            raise _nothing_takes_it(model, profile, backends, options, exc) from None
        settled = _Settled(
            placed=placed, built=built, whys=whys, options=options, order=tuple(by_id)
        )
        used = set(placed.backends.values()) or {backends[0].profile.id}
        owners = [b for b in backends if b.profile.id in used and b.profile.scheme]
        if not owners or owners[0] is owner:
            break
        owner = owners[0]
    assert settled is not None
    return settled


def _likely_owner(model: ModelFacts, backends: Sequence[Backend], precision: str) -> Backend:
    able = [b for b in backends if precision in ("auto", *b.profile.precisions)]
    for backend in able or backends:
        if len(backend.refusals(model)) < len(model.nodes):
            return backend
    return backends[-1]


def _precision(backends: Sequence[Backend], recipe: Recipe) -> str:
    wanted = recipe.precision or "fp32"
    # a backend the user asked for is not passed over in silence
    asked = backends[:1] if recipe.prefer else backends
    if wanted == "auto" or any(wanted in each.profile.precisions for each in asked):
        return wanted
    first = backends[0].profile
    raise RecipeError(
        f"cannot build {wanted} for {first.id}: it runs {', '.join(first.precisions)}",
        hint=f"build with --precision {first.precisions[0]}",
        backend=first.id,
    )


def _refuse_unknown_names(model: ModelFacts, keep_float: Sequence[str]) -> None:
    """Refuse names to keep in float that the model does not have.

    Not where nodes have bodies, whose nodes may be meant and are not in the facts.
    """
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
) -> tuple[dict[int, str | None], AsBuilt]:
    """Say of every node why it stays in float, or None; give the graph as it will be built."""
    nodes = model.fixed or model.nodes
    indices = [node.index for node in nodes]
    outputs = {value.name for value in model.source.outputs}
    rules = None if backend.scheme is None else backend.scheme.rules
    whole = precision in _EIGHT_BITS and rules is not None
    built = as_built(
        nodes, outputs, joins_bias=whole, keep=recipe.keep_float, folded=model.folded
    )
    if precision == "fp32":
        return dict.fromkeys(indices), built
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
    return whys, built


def _stand_ins(model: ModelFacts, built: AsBuilt, placed: Placed) -> dict[int, int | None]:
    """Give, by source node, the placed node it became a part of.

    What is folded away goes with its first reader; None where nothing is left of that either.
    """
    found: dict[int, int | None] = {}
    readers: dict[str, int] = {}
    for node in reversed(model.nodes):
        host = built.host(node.index)
        if host in placed.backends:
            found[node.index] = host
        else:
            later = [readers[name] for name in node.outputs if name in readers]
            found[node.index] = found[min(later)] if later else None
        readers.update(dict.fromkeys((*node.inputs, *node.captures), node.index))
    return found


def _refusals(
    host: int, backend: str, chosen: _Settled, given_up: Sequence[GivenUp]
) -> tuple[Refusal, ...]:
    refusals = []
    for name in chosen.order[: chosen.order.index(backend)]:
        reason = chosen.options.refusals[name].get(host)
        if reason is None:
            reasons = [e.reason for e in given_up if e.backend == name and host in e.nodes]
            if not reasons:
                continue  # folded away: it never asks a backend
            reason = reasons[-1]
        refusals.append(Refusal(backend=name, reason=reason))
    return tuple(refusals)


def _assumed_speeds(placed: Placed, known: Mapping[str, Backend]) -> tuple[str, ...]:
    """Name the speeds that the profile does not give and that decided a placement."""
    used = {part.backend for part in placed.parts} | {each.backend for each in placed.islands}
    if len(used) < 2:
        return ()
    return tuple(
        f"backends.{name}.speed"
        for name, backend in known.items()
        if name in used and backend.profile.speed is None
    )


def _shares(placed: Placed, total: float) -> dict[str, float]:
    shares: dict[str, float] = {}
    for index, backend in placed.backends.items():
        shares[backend] = shares.get(backend, 0.0) + placed.node_us[index] / total
    return shares


def _part_precision(
    precision: str, nodes: Sequence[int], whys: Mapping[int, str | None]
) -> str:
    if precision == "fp32" or any(whys.get(index) is None for index in nodes):
        return precision
    return "fp32"


def _fixed_inputs(model: ModelFacts) -> tuple[str, ...]:
    return tuple(
        value.name
        for value in model.source.inputs
        if value.shape and not isinstance(value.shape[0], int)
    )


def _steps(precision: str, parts: Collection[Backend]) -> tuple[str, ...]:
    steps = ["simplify"] if precision == "fp32" else ["simplify", "quantize"]
    steps.append("fit-opset")
    if len(parts) > 1:
        steps.append("split")
    if any(backend.compiler is not None for backend in parts):
        steps.append("compile")
    return (*steps, "check", "bundle")


def _nothing_takes_it(
    model: ModelFacts,
    profile: TargetProfile,
    backends: Sequence[Backend],
    options: Options,
    exc: Unplaced,
) -> PlacementError:
    facts: NodeFacts = {node.index: node for node in model.nodes}[exc.nodes[0]]
    label = f"node {facts.index}" + (f" {facts.name!r}" if facts.name else "")
    # the backend that comes nearest tells the user most
    nearest = min(backends, key=lambda backend: options.count(backend.profile.id)).profile.id
    count = len(exc.nodes)
    others = [
        f"{backend.profile.id}: {options.refusals[backend.profile.id][facts.index]}"
        for backend in backends
        if backend.profile.id != nearest
    ]
    return PlacementError(
        f"cannot place {model.source.name} on {profile.name}: {label} ({facts.op}): "
        f"{nearest}: {options.refusals[nearest][facts.index]}"
        + (f" ({'; '.join(others)})" if others else ""),
        hint=f"{count} of {len(model.nodes)} nodes are refused by every backend; {nearest} "
        f"comes nearest: {_remedy(model, facts)}, or choose another target",
        node=facts.index,
        op=facts.op,
        refused=count,
    )


def _remedy(model: ModelFacts, node: NodeFacts) -> str:
    """Say what would make a backend take a node: fixed shapes where they are what it lacks."""
    types = [value for value in (*node.input_types, *node.output_types) if value is not None]
    if all(isinstance(extent, int) for value in types for extent in value.shape):
        return "replace those operators in the model"
    names = [
        value.name
        for value in model.source.inputs
        if any(not isinstance(extent, int) for extent in value.shape[1:])
    ]
    if not names:
        return "replace those operators in the model"
    return " ".join(f"--shape {name}=..." for name in names[:4]) + " fixes the shapes"
