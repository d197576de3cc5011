"""``edgesdk inspect``: facts and lints of a model, and where its nodes would run.

Exit code 0 says that nothing needs attention, 1 that a warning or an error was found; remarks
of severity ``info`` do not count.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from edgesdk.cli.modelinput import pick_target, source_record
from edgesdk.cli.options import (
    FormatOption,
    ModelArgument,
    PrecisionOption,
    RecipeOption,
    ShapeOption,
    TargetOption,
    TargetsDirOption,
)
from edgesdk.cli.output import Format, Output, size_text
from edgesdk.cli.plan import show_nodes
from edgesdk.cli.progress import busy
from edgesdk.cli.source import (
    DynamicOption,
    OpsetOption,
    SourceChoices,
    TrustOption,
    open_source,
)
from edgesdk.errors import EXIT_FINDINGS, PlacementError
from edgesdk.settings import resolve_settings

if TYPE_CHECKING:
    from edgesdk.model.open import OpenedModel
    from edgesdk.model.tflite import OpenedTflite
    from edgesdk.model.values import Finding
    from edgesdk.plan.values import BuildPlan

__all__ = ["app"]

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command()
def inspect(
    *,
    model: ModelArgument,
    target: TargetOption = None,
    shape: ShapeOption = None,
    opset: OpsetOption = None,
    dynamic: DynamicOption = None,
    trust: TrustOption = False,
    recipe: RecipeOption = None,
    precision: PrecisionOption = None,
    targets_dir: TargetsDirOption = None,
    fmt: FormatOption = Format.TEXT,
) -> None:
    """Say what a model is and where it would run.

    Exit code 0: clean. 1: there are warnings or errors. 2: the model cannot be used.
    """
    from edgesdk.plan.planner import model_facts, plan_build
    from edgesdk.plan.recipe import load_recipe

    out = Output("inspect", fmt)
    settings = resolve_settings({"targets_dir": targets_dir})
    wanted = load_recipe(recipe, precision=precision)
    profile = pick_target(settings, target) if target else None
    plan: BuildPlan | None = None
    opened = open_source(
        settings, model, SourceChoices(shapes=shape, opset=opset, dynamic=dynamic, trust=trust)
    )
    with busy(f"plan {model.name}"):
        findings = _lint(opened)
        if profile is not None:
            try:
                plan = plan_build(model_facts(opened, profile, wanted), profile, wanted)
            except PlacementError as exc:
                findings.append(_not_placed(exc))
    out.document(
        {
            "model": source_record(opened),
            "findings": findings,
            "target": None if profile is None else profile.name,
            "placement": None if plan is None else plan.to_json(),
        }
    )
    _show_facts(out, opened)
    if plan is not None:
        out.line()
        show_nodes(out, plan)
    _show_findings(out, findings)
    if any(finding.severity != "info" for finding in findings):
        raise typer.Exit(EXIT_FINDINGS)


def _lint(opened: OpenedModel | OpenedTflite) -> list[Finding]:
    from edgesdk.model.lint import lint_model
    from edgesdk.model.tflite import OpenedTflite

    return [] if isinstance(opened, OpenedTflite) else list(lint_model(opened))


def _not_placed(exc: PlacementError) -> Finding:
    from edgesdk.model.values import Finding

    return Finding(
        code="not-placeable",
        severity="error",
        message=str(exc),
        hint=exc.hint,
        subject=str(exc.facts.get("op", "")),
    )


def _show_facts(out: Output, opened: OpenedModel | OpenedTflite) -> None:
    source = opened.source
    common = sorted(source.op_counts.items(), key=lambda pair: (-pair[1], pair[0]))
    out.pairs(
        [
            ("model", source.path),
            ("format", f"{source.format}, {size_text(source.bytes)}"),
            (
                "versions",
                f"opset {source.opset}, IR {source.ir_version}" if source.opset else None,
            ),
            ("producer", source.producer or None),
            ("sha256", source.sha256),
            ("inputs", "\n".join(str(each) for each in source.inputs)),
            ("outputs", "\n".join(str(each) for each in source.outputs)),
            ("weights", size_text(source.initializer_bytes)),
            (
                "operators",
                f"{sum(source.op_counts.values())}: "
                + ", ".join(f"{count} {op}" for op, count in common),
            ),
        ]
    )


def _show_findings(out: Output, findings: list[Finding]) -> None:
    out.line()
    if not findings:
        out.line("no findings")
        return
    for finding in findings:
        subject = f" {finding.subject}:" if finding.subject else ""
        out.line(f"{finding.severity}: [{finding.code}]{subject} {finding.message}")
        if finding.hint:
            out.line(f"  hint: {finding.hint}")
