"""From the graph as it is built to files: place it, cut it, compile each part.

The plan was made from the source graph on facts alone. Here the graph is there, with its pairs,
so the placement is made again from it by the same rules, and what a compiler turns down after
all goes elsewhere, with its reason. What differs from the plan is told.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgesdk.backends import ModelFacts, backend_for
from edgesdk.build.parts import BuiltPart, BuiltParts, Refused, Workshop
from edgesdk.build.split import cut_parts
from edgesdk.errors import CompileError, PlacementError
from edgesdk.model.kernels import KernelGraph, kernel_graph
from edgesdk.model.shapes import with_shapes
from edgesdk.model.values import SourceModel
from edgesdk.plan import BuildPlan, Recipe
from edgesdk.plan.order import order_backends
from edgesdk.plan.placing import Placed, PlacedPart, Unplaced, place
from edgesdk.plan.planner import take_nodes
from edgesdk.profiles.values import TargetProfile
from edgesdk.progress import OnNote

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["build_parts"]

#: Placements that may be tried when compilers turn down what their rules took.
_MOST_TRIES = 24
_NOT_QUANTIZED = "it stays in float in the graph as it is built"


def build_parts(
    model: ir.Model,
    source: SourceModel,
    profile: TargetProfile,
    recipe: Recipe,
    plan: BuildPlan,
    *,
    precision: str,
    folder: Path,
    on_note: OnNote,
) -> BuiltParts:
    """Place, cut and compile a graph.

    Args:
        model: The graph in its final numbers.
        source: What it was made from.
        profile: The target.
        recipe: What the user wants.
        plan: What was foretold of the source graph.
        precision: What the graph was converted to.
        folder: Where files go.
        on_note: Told what concerns this computer only.

    Raises:
        PlacementError: Compilers turned down nodes until no backend was left for one.
        CompileError: A part cannot be compiled.
    """
    facts = ModelFacts(source=source, nodes=())
    shop = Workshop(
        profile=profile,
        backends={
            entry.id: backend_for(entry, facts) for entry in order_backends(profile, recipe)
        },
        precision=precision,
        folder=folder,
        on_note=on_note,
    )
    turned_down: dict[str, dict[int, str]] = {}
    kernels = kernel_graph(model)
    placed = _place(kernels, source, shop, turned_down)
    if len(placed.parts) > 1 or shop.backends[placed.parts[0].backend].compiler is not None:
        # what was inserted has no shapes yet, and a boundary has to have one
        model = with_shapes(model)
        kernels = kernel_graph(model)
    for _ in range(_MOST_TRIES):
        placed = _place(kernels, source, shop, turned_down)
        cuts = cut_parts(model, kernels, placed.parts)
        try:
            parts = [
                shop.build(number, part, cut, _precision_of(part, kernels, precision))
                for number, (part, cut) in enumerate(zip(placed.parts, cuts, strict=True))
            ]
        except Refused as exc:
            _note_refusals(kernels, placed, exc, turned_down)
            continue
        return BuiltParts(
            parts=tuple(parts),
            placement=_placement(kernels, placed, plan, parts, turned_down),
            findings=tuple(finding for part in parts for finding in part.compiled.findings),
        )
    raise CompileError(
        f"cannot compile {source.name} for {profile.name}: compilers turned down nodes of "
        f"{_MOST_TRIES} placements one after the other",
        hint="leave the backend out with `avoid` in a recipe",
    )


def _place(
    kernels: KernelGraph,
    source: SourceModel,
    shop: Workshop,
    turned_down: Mapping[str, Mapping[int, str]],
) -> Placed:
    precision, backends = shop.precision, list(shop.backends.values())
    facts = ModelFacts(source=source, nodes=tuple(kernels.nodes.values()))
    whole = precision in ("int8", "int16x8")
    whys = {
        index: _NOT_QUANTIZED if whole and index not in kernels.quantized else None
        for index in kernels.nodes
    }
    options = take_nodes(facts, backends, precision, whys)
    refusals = {
        name: {**reasons, **turned_down.get(name, {})}
        for name, reasons in options.refusals.items()
    }
    precisions = {i: "fp32" if whys[i] is not None else precision for i in kernels.nodes}
    try:
        return place(
            kernels.nodes,
            backends,
            refusals,
            precisions=precisions,
            outputs=kernels.outputs,
        )
    except Unplaced as exc:
        node = kernels.nodes[exc.nodes[0]]
        reasons = "; ".join(
            f"{name}: {found[node.index]}"
            for name, found in refusals.items()
            if node.index in found
        )
        raise PlacementError(
            f"cannot place node {node.name!r} ({node.op}) of the graph as it is built: "
            f"{reasons}",
            hint="replace that operator in the model, keep it in float (keep_float in a "
            "recipe), or choose another target",
            node=node.name,
            op=node.op,
        ) from None


def _note_refusals(
    kernels: KernelGraph,
    placed: Placed,
    exc: Refused,
    turned_down: dict[str, dict[int, str]],
) -> None:
    """Note who turned down what: of those that share a file, the one that a node was for."""
    part = exc.part
    by_output = {name: i for i in part.nodes for name in kernels.nodes[i].outputs if name}
    found = {by_output[name]: why for name, why in exc.reasons.items() if name in by_output}
    if not found:
        raise CompileError(
            f"cannot compile a part for {part.backend}: {exc}",
            hint="leave this backend out with `avoid` in a recipe",
            backend=part.backend,
        ) from exc
    for index, why in found.items():
        turned_down.setdefault(placed.backends[index], {})[index] = why


def _precision_of(part: PlacedPart, kernels: KernelGraph, precision: str) -> str:
    if precision in ("int8", "int16x8") and not any(
        index in kernels.quantized for index in part.nodes
    ):
        return "fp32"
    return precision


def _placement(
    kernels: KernelGraph,
    placed: Placed,
    plan: BuildPlan,
    parts: Sequence[BuiltPart],
    turned_down: Mapping[str, Mapping[int, str]],
) -> dict[str, Any]:
    """Say where the nodes of the graph as it is built went, and what differs from the plan."""
    counts: dict[str, int] = {}
    for name in placed.backends.values():
        counts[name] = counts.get(name, 0) + 1
    total = placed.total_us or 1.0
    return {
        "nodes_by_backend": counts,
        "parts": [
            {
                "index": number,
                "backend": part.backend,
                "nodes": len(part.nodes),
                "boundary_bytes": part.boundary_bytes,
                "share": round(sum(placed.node_us[i] for i in part.nodes) / total, 6),
                "inside": dict(built.compiled.inside),
            }
            for number, (part, built) in enumerate(zip(placed.parts, parts, strict=True))
        ],
        "overhead_share": round((placed.launches_us + placed.copies_us) / total, 6),
        "moved": _moved(kernels, placed, plan, turned_down),
    }


def _moved(
    kernels: KernelGraph,
    placed: Placed,
    plan: BuildPlan,
    turned_down: Mapping[str, Mapping[int, str]],
) -> list[dict[str, str]]:
    """List the nodes, by name, that did not go where the plan said."""
    planned = {node.name: node.backend for node in plan.nodes if node.name}
    moved = []
    for index, backend in placed.backends.items():
        node = kernels.nodes[index]
        before = planned.get(node.name)
        if before is None or before == backend:
            continue
        reason = turned_down.get(before, {}).get(index, "the graph as it is built differs")
        moved.append(
            {
                "node": node.name[:200],
                "op": node.op,
                "planned": before,
                "built": backend,
                "reason": reason[:400],
            }
        )
    return moved[:1000]
