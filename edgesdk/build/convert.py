"""The step of a build that changes the precision of a graph."""

from __future__ import annotations

import hashlib
import itertools
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgesdk.model.values import SourceModel
from edgesdk.plan import BuildPlan, Recipe
from edgesdk.profiles.values import BackendProfile, TargetProfile
from edgesdk.progress import OnNote, OnProgress
from edgesdk.quantize.means import MEANS

if TYPE_CHECKING:
    import onnx_ir as ir

    from edgesdk.data.dataset import Dataset
    from edgesdk.quantize.judge import LabelledJudge
    from edgesdk.quantize.trial import OnSettled

__all__ = ["convert_part"]


def convert_part(
    model: ir.Model,
    source: SourceModel,
    *,
    profile: TargetProfile,
    backend: BackendProfile,
    recipe: Recipe,
    plan: BuildPlan,
    calib: Dataset | None,
    labelled: Dataset | None,
    state_dir: Path | None,
    as_built: dict[str, Any],
    on_note: OnNote,
    on_settled: OnSettled | None = None,
    on_progress: OnProgress,
) -> ir.Model:
    """Give the graph in the plan's precision; write what was decided into ``as_built``.

    ``on_settled`` is told what a static quantization decided, see `edgesdk.quantize.modes`.

    Raises:
        QuantizeError: It cannot be done.
    """
    from edgesdk.quantize.modes import Wanted, convert
    from edgesdk.quantize.state import State

    # several parts are fitted to their own backends once they are cut
    alone = len(plan.parts) == 1
    wanted = Wanted(
        precision=plan.precision,
        scheme=backend.scheme,
        precisions=backend.precisions,
        runtime=backend.runtime,
        kind=backend.kind,
        max_opset=backend.max_opset if alone else None,
        max_ir=backend.max_ir if alone else None,
        keep_float=recipe.keep_float,
        means=MEANS if recipe.means is None else recipe.means,
        max_drop=recipe.max_drop,
        prune=recipe.prune,
        requantize=recipe.requantize,
        # the default target is whatever computer this is, so times here mean something
        same_machine=profile.default and backend.runtime == "onnxruntime",
    )
    judged = labelled if labelled is not None else calib
    key = [part.digest for part in (calib, judged) if part is not None]
    key.append(_labels_digest(judged))  # a search on other labels is another one
    key.append(str(source.inputs))  # whose shapes may have been fixed
    state = State(state_dir, source.sha256, plan.target_sha256, recipe.sha256, *key)
    count = recipe.calib_samples
    total = None if calib is None or calib.count is None else min(calib.count, count)
    done = convert(
        model,
        None if calib is None else (lambda: itertools.islice(calib.samples(), count)),
        wanted,
        total=total,
        judge=_judge_on(judged, on_progress),
        state=state,
        on_settled=on_settled,
        on_progress=on_progress,
    )
    state.clear()
    as_built.update(done.to_json())
    for finding in done.findings:
        if finding.code == "slower-than-float":
            on_note(f"{finding.severity}: {finding.message}\n  hint: {finding.hint}")
        else:
            as_built["findings"].append(asdict(finding))
    return done.model


def _labels_digest(data: Dataset | None) -> str:
    import numpy as np

    labels = None if data is None else data.labels
    if labels is None:
        return ""
    head = f"{labels.dtype} {labels.shape} "
    return hashlib.sha256(head.encode() + np.ascontiguousarray(labels).tobytes()).hexdigest()


def _judge_on(data: Dataset | None, on_progress: OnProgress) -> LabelledJudge | None:
    from edgesdk.quantize.judge import LabelledJudge

    if data is None or data.labels is None:
        return None
    return LabelledJudge(
        data.samples,
        data.labels,
        batch=data.batch,
        total=data.count,
        on_progress=on_progress,
    )
