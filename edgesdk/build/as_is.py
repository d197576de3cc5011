"""Take a TFLite file into a bundle as it is, or as a backend's compiler makes it from that."""

from __future__ import annotations

from pathlib import Path

from edgesdk.backends import CompiledPart, ModelFacts, backend_for
from edgesdk.build.parts import BuiltParts, Workshop
from edgesdk.build.split import CutPart
from edgesdk.model.values import Finding, SourceModel
from edgesdk.plan import BuildPlan
from edgesdk.profiles.values import TargetProfile
from edgesdk.progress import OnNote

__all__ = ["take_file"]


def take_file(
    model: ModelFacts,
    profile: TargetProfile,
    plan: BuildPlan,
    *,
    folder: Path,
    on_note: OnNote,
) -> BuiltParts:
    """Make the one part of a file.

    Raises:
        CompileError: This computer's LiteRT does not load it, though it knows its operators.
    """
    source = model.source
    shop = Workshop(
        profile=profile,
        backends={entry.id: backend_for(entry, model) for entry in profile.backends},
        precision="as-is",
        folder=folder,
        on_note=on_note,
    )
    backend = shop.backends[plan.parts[0].backend]
    cut = CutPart(model=None, inputs=source.inputs, outputs=source.outputs)
    compiled = CompiledPart(files={"model": source.path}, format="tflite")
    if backend.compiler is not None and backend.rest_kind:
        compiled = backend.compiler(shop.job(backend, 0, folder, cut, source.path))
    foreign = any(name.startswith("custom.") for name in source.op_counts)
    part = shop.built(backend, cut, "as-is", compiled, may_fail_here=foreign)
    findings = compiled.findings
    if part.host is None:
        findings = (*findings, _not_run_here(source))
    return BuiltParts(
        parts=(part,),
        placement={"parts": [{"index": 0, "inside": dict(compiled.inside)}]},
        findings=findings,
    )


def _not_run_here(source: SourceModel) -> Finding:
    names = [name.partition(".")[2] for name in source.op_counts if name.startswith("custom.")]
    return Finding(
        code="not-run-here",
        severity="warning",
        message=f"this computer has no kernel for {', '.join(names)[:200]}, so no answers are "
        "expected of the device: there, each check vector runs twice, and both runs have to "
        "give the same finite numbers",
        hint="compare its answers with your own, or give the model without these operators",
        subject=names[0],
    )
