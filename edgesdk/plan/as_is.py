"""Plan a TFLite file: it is deployed as it is, so it is one part, whoever runs which operator.

The part is made for the best backend that takes at least one operator. What that backend leaves
out runs in the same file on the backend of its `rest_kind`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from edgesdk.backends import Backend, ModelFacts, Refusal, backend_for
from edgesdk.errors import PlacementError
from edgesdk.model.values import NodeFacts
from edgesdk.plan.cost import node_us
from edgesdk.plan.memory import predict_memory_bytes, refuse_too_large, tensor_bytes
from edgesdk.plan.values import BuildPlan, PlannedNode, PlannedPart
from edgesdk.profiles.values import BackendProfile, TargetProfile

__all__ = ["plan_as_is"]


def plan_as_is(
    model: ModelFacts,
    profile: TargetProfile,
    entries: Sequence[BackendProfile],
    *,
    recipe_sha256: str,
) -> BuildPlan:
    """Decide for every operator of a TFLite file where it runs, and record why not elsewhere.

    Args:
        model: The file.
        profile: The target.
        entries: Its backends, best first, as the recipe wants them.
        recipe_sha256: Digest of the recipe.

    Raises:
        PlacementError: No backend, with the one that runs its rest, takes every operator; or
            the file does not fit the device's memory.
    """
    backends = [backend_for(entry, model) for entry in entries]
    refusals = {each.profile.id: each.refusals(model) for each in backends}
    chosen = _choose(model, profile, backends, refusals)
    rest = _rest(chosen, backends)
    mine = refusals[chosen.profile.id]
    where = {
        node.index: rest if node.index in mine and rest is not None else chosen
        for node in model.nodes
    }
    memory_bytes = predict_memory_bytes(model, {})
    refuse_too_large(model.source.name, profile, memory_bytes)
    spent = {node.index: _node_us(node, where[node.index]) for node in model.nodes}
    total = sum(spent.values()) or 1.0
    nodes = tuple(
        PlannedNode(
            index=node.index,
            name=node.name,
            op=node.op,
            backend=where[node.index].profile.id,
            precision="as-is",
            refusals=_refused_by(node.index, where[node.index], backends, refusals, chosen),
            reads=node.reads,
            gives=node.outputs,
            share=spent[node.index] / total,
        )
        for node in model.nodes
    )
    return BuildPlan(
        model=model.source.name,
        model_sha256=model.source.sha256,
        target=profile.name,
        target_sha256=profile.digest,
        recipe_sha256=recipe_sha256,
        precision="as-is",
        steps=("check", "bundle"),
        nodes=nodes,
        parts=(
            PlannedPart(
                index=0,
                backend=chosen.profile.id,
                runtime=chosen.profile.runtime,
                format=chosen.part_format(),
                precision="as-is",
                nodes=tuple(node.index for node in model.nodes),
                reads=tuple(value.name for value in model.source.inputs),
                gives=tuple(value.name for value in model.source.outputs),
                boundary_bytes=sum(
                    tensor_bytes(value, "as-is")
                    for value in (*model.source.inputs, *model.source.outputs)
                ),
            ),
        ),
        memory_bytes=memory_bytes,
        assumed=profile.assumed,
        share_by_backend=_shares(nodes),
        warnings=_warnings(model, where),
    )


def _node_us(node: NodeFacts, backend: Backend) -> float:
    first = node.output_types[0] if node.output_types else None
    is_whole = first is not None and first.dtype in ("int8", "uint8", "int16")
    return node_us(node, backend.profile, "int8" if is_whole else "fp32")


def _shares(nodes: Sequence[PlannedNode]) -> dict[str, float]:
    """Give the share of the predicted time that each backend's operators take."""
    shares: dict[str, float] = {}
    for node in nodes:
        shares[node.backend] = shares.get(node.backend, 0.0) + node.share
    return shares


def _rest(backend: Backend, backends: Sequence[Backend]) -> Backend | None:
    """Find the backend that runs, in the same file, what this one leaves out."""
    if not backend.rest_kind:
        return None
    same = [each for each in backends if each.profile.kind == backend.rest_kind]
    return same[0] if same else None


def _left(
    backend: Backend, backends: Sequence[Backend], refusals: Mapping[str, Mapping[int, str]]
) -> set[int]:
    """Give the operators that neither a backend takes nor the one that runs its rest."""
    left = set(refusals[backend.profile.id])
    rest = _rest(backend, backends)
    return left if rest is None else left & set(refusals[rest.profile.id])


def _choose(
    model: ModelFacts,
    profile: TargetProfile,
    backends: Sequence[Backend],
    refusals: Mapping[str, Mapping[int, str]],
) -> Backend:
    for backend in backends:
        takes_some = len(refusals[backend.profile.id]) < len(model.nodes) or not model.nodes
        if takes_some and not _left(backend, backends, refusals):
            return backend
    nearest = min(backends, key=lambda each: len(_left(each, backends, refusals)))
    left = sorted(_left(nearest, backends, refusals))
    node = next(each for each in model.nodes if each.index == left[0])
    reasons = "; ".join(
        f"{each.profile.id}: {refusals[each.profile.id][node.index]}"
        for each in backends
        if node.index in refusals[each.profile.id]
    )
    raise PlacementError(
        f"cannot place {model.source.name} on {profile.name}: {node.label}: {reasons}"[:1200],
        hint=_hint(model, nearest, left),
        node=node.index,
        op=node.op,
        refused=len(left),
    )


def _refused_by(
    index: int,
    runs: Backend,
    backends: Sequence[Backend],
    refusals: Mapping[str, Mapping[int, str]],
    chosen: Backend,
) -> tuple[Refusal, ...]:
    """Say why each better backend does not run an operator."""
    found = []
    for backend in backends:
        if backend is runs:
            break
        reason = refusals[backend.profile.id].get(index)
        if reason is None:
            left = len(_left(backend, backends, refusals))
            reason = f"takes this operator, but {left} others have nowhere to run"
            if backend is chosen:
                continue
        found.append(Refusal(backend=backend.profile.id, reason=reason))
    return tuple(found)


def _warnings(model: ModelFacts, where: Mapping[int, Backend]) -> tuple[str, ...]:
    """Name the custom operators on a processor, whose kernels a runtime may not bring."""
    names = sorted(
        {
            node.op
            for node in model.nodes
            if node.domain == "custom" and not where[node.index].profile.accelerator
        }
    )
    return tuple(
        f"{name} is a custom operator: its kernel must be registered where the runtime on the "
        "device does not bring it"
        for name in names
    )


def _hint(model: ModelFacts, nearest: Backend, left: Sequence[int]) -> str:
    """Say what to try with a file that no backend runs to its end."""
    alien = [node.op for node in model.nodes if node.domain == "custom" and node.index in left]
    if len(left) < len(model.nodes):
        return (
            f"{len(left)} of {len(model.nodes)} operators are left by {nearest.profile.id}, "
            "which comes nearest; replace those operators, or choose another target"
        )
    if alien:
        return (
            f"{alien[0]} runs only where its accelerator or kernel is: choose such a target, "
            "or give the file that it was made from"
        )
    return (
        "turn the file into ONNX (edgesdk import FILE -o FILE.onnx), or choose a target whose "
        "runtime reads TFLite"
    )
