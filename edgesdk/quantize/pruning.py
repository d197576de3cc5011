"""Prune before quantizing, under the same budget, and say what it bought."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

from edgesdk.errors import QuantizeError
from edgesdk.model.values import Finding
from edgesdk.progress import OnProgress
from edgesdk.quantize.host import HostSession
from edgesdk.quantize.judge import Judge
from edgesdk.quantize.prune_spec import PruneSpec
from edgesdk.quantize.values import PrunedWeights

if TYPE_CHECKING:
    import numpy as np
    import onnx_ir as ir

__all__ = ["PRUNE_SAMPLES", "prune_within"]

Sample = dict[str, "np.ndarray"]

#: So many samples decide what goes and refit what stays.
PRUNE_SAMPLES = 64


def prune_within(
    model: ir.Model,
    samples: Sequence[Sample],
    spec: PruneSpec,
    *,
    kind: str,
    keep: Collection[str],
    judge: Judge | None,
    limit: float | None,
    on_progress: OnProgress,
) -> tuple[ir.Model, tuple[PrunedWeights, tuple[Finding, ...]]]:
    """Prune a float graph, and check the loss where it can be measured.

    Args:
        model: Stays as it is.
        samples: Typical inputs.
        spec: What goes.
        kind: The backend's kind, for what is known of its speed.
        keep: Node names and operator types that are not pruned.
        judge: Measures the loss; None where nothing can.
        limit: The largest loss allowed.
        on_progress: Told of samples.

    Raises:
        QuantizeError: No samples, nothing to prune, or the loss is larger than allowed.
    """
    from edgesdk.quantize.prune import prune
    from edgesdk.quantize.prune_gain import speed_finding

    if not samples:
        raise QuantizeError(
            "cannot prune the model: there is no calibration data",
            hint="give some 100 typical inputs with --calib",
        )
    done = prune(
        model,
        samples,
        pattern=spec.pattern,
        sparsity=spec.sparsity,
        keep=keep,
        on_progress=on_progress,
    )
    speed = speed_finding(spec, kind=kind)
    findings = done.findings if speed is None else (*done.findings, speed)
    drop = None if judge is None else judge.drop(HostSession(done.model))
    if judge is not None and drop is not None and limit is not None and drop > limit:
        raise QuantizeError(
            f"cannot prune by {spec.text}: {judge.metric} drops by {drop:.4g} (expected at "
            f"most {limit:g})",
            hint="prune less, allow more with --max-drop, or leave pruning out",
            drop=drop,
            limit=limit,
        )
    record = PrunedWeights(
        pattern=spec.text,
        layers=tuple(done.layers),
        bytes_before=done.before.compressed_bytes,
        bytes_after=done.after.compressed_bytes,
        drop=drop,
    )
    return done.model, (record, findings)
