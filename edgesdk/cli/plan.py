"""``edgesdk plan``: what a build would do, to be argued with before anything is built."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from edgesdk.cli.contest import contender_record, show_contest
from edgesdk.cli.modelinput import open_data, pick_target, refuse_avoided, resolved
from edgesdk.cli.options import (
    BackendOption,
    CalibOption,
    FormatOption,
    ModelArgument,
    PrecisionOption,
    RecipeOption,
    ShapeOption,
    TargetOption,
    TargetsDirOption,
)
from edgesdk.cli.output import Format, Output, size_text
from edgesdk.cli.placement import idle_notes
from edgesdk.cli.progress import busy
from edgesdk.cli.source import (
    DynamicOption,
    OpsetOption,
    SourceChoices,
    TrustOption,
    for_target,
    open_source,
)
from edgesdk.settings import resolve_settings

if TYPE_CHECKING:
    from edgesdk.plan.values import BuildPlan

__all__ = ["app", "show_nodes", "show_parts", "show_plan"]

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command()
def plan(
    *,
    model: ModelArgument,
    target: TargetOption = None,
    calib: CalibOption = None,
    recipe: RecipeOption = None,
    precision: PrecisionOption = None,
    backend: BackendOption = None,
    shape: ShapeOption = None,
    opset: OpsetOption = None,
    dynamic: DynamicOption = None,
    trust: TrustOption = False,
    targets_dir: TargetsDirOption = None,
    fmt: FormatOption = Format.TEXT,
) -> None:
    """Show what a build would do, and why.

    A plan for int8 needs no calibration data: --precision int8 is enough.
    """
    from edgesdk.plan.contest import plan_contest
    from edgesdk.plan.planner import model_facts, plan_build
    from edgesdk.plan.recipe import load_recipe

    out = Output("plan", fmt)
    settings = resolve_settings({"targets_dir": targets_dir})
    profile = pick_target(settings, target)
    prefer = None if backend is None else (backend,)
    wanted = load_recipe(recipe, precision=precision, prefer=prefer)
    refuse_avoided(wanted, backend)
    source = SourceChoices(shapes=shape, opset=opset, dynamic=dynamic, trust=trust)
    opened = for_target(settings, open_source(settings, model, source), profile, wanted)
    with busy(f"plan {model.name}"):
        dataset = open_data(calib, opened, wanted)
        if wanted.precision is None and opened.source.format == "onnx":
            wanted = resolved(wanted, opened, calibrated=dataset is not None)
        made = plan_build(model_facts(opened, profile, wanted), profile, wanted)
        contenders = plan_contest(opened, profile, wanted, known=made)
    out.document({**made.to_json(), "contest": [contender_record(c) for c in contenders]})
    show_plan(out, made)
    for note in idle_notes(profile, made):
        out.line(f"\n{note}")
    show_contest(out, contenders)


def show_plan(out: Output, made: BuildPlan) -> None:
    """Show a whole plan to people."""
    memory = "not known, a shape is not fixed (--shape NAME=... fixes an input's)"
    if made.memory_bytes is not None:
        memory = f"about {size_text(made.memory_bytes)} for weights and tensors"
    out.pairs(
        (
            ("model", made.model),
            ("target", made.target),
            ("precision", made.precision),
            ("steps", ", ".join(made.steps)),
            ("memory", memory),
        )
    )
    out.line()
    show_nodes(out, made)
    out.line()
    show_parts(out, made)
    for warning in made.warnings:
        out.line(f"\nwarning: {warning}")
    if made.assumed:
        out.line(f"\nthis rests on figures that nobody has measured: {', '.join(made.assumed)}")


def show_parts(out: Output, made: BuildPlan) -> None:
    """Show the chain of parts, and the islands that are not worth their boundaries."""
    out.table(
        ("part", "backend", "runtime", "format", "precision", "nodes", "in and out", "time"),
        [
            (
                part.index,
                part.backend,
                part.runtime,
                part.format,
                part.precision,
                len(part.nodes),
                size_text(part.boundary_bytes),
                f"{part.share:.0%}",
            )
            for part in made.parts
        ],
        right=("part", "nodes", "in and out", "time"),
    )
    shares = made.share_by_backend or {}
    if len(shares) > 1 or made.overhead_share:
        text = ", ".join(f"{share:.1%} on {name}" for name, share in shares.items())
        if made.overhead_share:
            text += f", {made.overhead_share:.1%} in copies and launches"
        out.line(f"predicted time: {text}")
    for each in made.given_up:
        out.line(f"given up on {each.backend}: {each.reason}")
    if made.fixed_inputs:
        out.line(f"the open first extent of {', '.join(made.fixed_inputs)} is built as 1")


def show_nodes(out: Output, made: BuildPlan) -> None:
    """Show where each node runs and which backends turned it down.

    A reason that a backend has against every node is said once, not on every line.
    """
    shared = (
        [each for each in made.nodes[0].refusals if all(each in n.refusals for n in made.nodes)]
        if made.nodes
        else []
    )
    for each in shared:
        out.line(f"{each.backend} takes none of the nodes: {each.reason}")
    if shared:
        out.line()
    out.table(
        ("node", "name", "op", "backend", "precision", "refused by", "in float because"),
        [
            (
                node.index,
                _shortened(node.name),
                node.op,
                node.backend,
                node.precision,
                "; ".join(
                    f"{each.backend}: {each.reason}"
                    for each in node.refusals
                    if each not in shared
                ),
                node.why_float or "",
            )
            for node in made.nodes
        ],
        right=("node",),
    )
    counts = ", ".join(f"{count} on {name}" for name, count in made.nodes_by_backend.items())
    out.line(f"{len(made.nodes)} node{'s'[: len(made.nodes) != 1]}: {counts}")


def _shortened(name: str, limit: int = 40) -> str:
    return name if len(name) <= limit else "…" + name[1 - limit :]
