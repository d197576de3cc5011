"""Precisions that need no ranges: halves, scales as values come, weights of four bits."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

from edgesdk.errors import QuantizeError
from edgesdk.model.values import Finding
from edgesdk.progress import OnProgress
from edgesdk.quantize.compare import noise_by_output, open_candidate, sqnr_db
from edgesdk.quantize.host import HostSession
from edgesdk.quantize.judge import Judge
from edgesdk.quantize.observe import Kept
from edgesdk.quantize.values import BudgetOutcome, Converted, Quantized

if TYPE_CHECKING:
    import numpy as np
    import onnx_ir as ir

__all__ = ["MOMENT_SAMPLES", "UNCALIBRATED", "convert_uncalibrated", "judge_converted"]

Sample = dict[str, "np.ndarray"]

UNCALIBRATED = ("fp16", "int8-dynamic", "int4-weights")
#: What their weights are stored as: onnxruntime's own 4-bit operators take bytes.
_STORED = {
    "fp16": {"FLOAT16"},
    "int8-dynamic": {"INT8", "UINT8"},
    "int4-weights": {"INT4", "UINT4", "INT8", "UINT8"},
}
#: Samples that tell how weights of four bits are best rounded ...
MOMENT_SAMPLES = 64
#: ... and that answers are compared on.
_COMPARED_SAMPLES = 8


def convert_uncalibrated(
    model: ir.Model,
    precision: str,
    *,
    samples: Sequence[Sample],
    runtime: str,
    max_opset: int | None,
    max_ir: int | None,
    keep_float: Collection[str],
    reduce_range: bool,
    on_progress: OnProgress,
) -> tuple[Converted, int]:
    """Convert a graph to one of `UNCALIBRATED`; say how many samples had a part in it.

    Raises:
        QuantizeError: No node can be converted.
    """
    if precision == "fp16":
        from edgesdk.quantize.half import to_half

        return to_half(model, keep_float=keep_float), 0
    if precision == "int8-dynamic":
        from edgesdk.quantize.dynamic import to_dynamic_int8

        done = to_dynamic_int8(
            model, runtime=runtime, keep_float=keep_float, reduce_range=reduce_range
        )
        return done, 0
    from edgesdk.quantize.moments import collect_moments
    from edgesdk.quantize.weights_only import to_int4_weights

    seconds = None
    if samples:
        names = [node.name or "" for node in model.graph if node.op_type in ("MatMul", "Gemm")]
        found = collect_moments(model, names, samples, on_progress=on_progress)
        seconds = {name: one.second[0] for name, one in found.moments.items()}
    done = to_int4_weights(
        model,
        runtime=runtime,
        max_opset=max_opset,
        max_ir=max_ir,
        second_moments=seconds,
        keep_float=keep_float,
    )
    return done, len(samples)


def judge_converted(
    model: ir.Model,
    done: Converted,
    precision: str,
    *,
    samples: Sequence[Sample],
    used: int,
    judge: Judge | None,
    limit: float | None,
    required: bool,
) -> Quantized:
    """Measure a converted graph against the float one, and hold it to the budget.

    Raises:
        QuantizeError: It breaks a limit that is ``required``, or nothing tells whether it does.
    """
    session = open_candidate(done.model)
    kept = _kept(model, samples[:_COMPARED_SAMPLES])
    noise = noise_by_output(session, kept) if kept else {}
    outcome = None
    findings = list(done.findings)
    if limit is not None and (required or judge is not None):
        outcome = _outcome(judge, session, noise, limit)
        if outcome is None and required:
            raise QuantizeError(
                f"cannot keep a drop of {limit:g} in {precision}: there is nothing to measure "
                "it on",
                hint="give labelled data with --data, or typical inputs with --calib",
                limit=limit,
            )
    if outcome is not None and outcome.after > outcome.limit:
        problem = (
            f"{outcome.metric} drops by {outcome.after:.4g} in {precision} (expected at most "
            f"{outcome.limit:g})"
        )
        if required:
            raise QuantizeError(
                f"cannot keep the budget: {problem}",
                hint="allow more with --max-drop, keep nodes in float (keep_float in a "
                "recipe), or build with --precision fp32",
                drop=outcome.after,
                limit=outcome.limit,
            )
        findings.append(Finding(code="budget-not-kept", severity="warning", message=problem))
    return Quantized(
        model=done.model,
        precision=precision,
        samples=used,
        quantized_nodes=done.converted_nodes,
        quantized_weights=_stored(done.model, precision),
        left_float=done.left_float,
        sqnr_db={name: sqnr_db(value) for name, value in noise.items()} or None,
        budget=outcome,
        findings=tuple(findings),
    )


def _stored(model: ir.Model, precision: str) -> int:
    """Count the weights that are stored in the new precision, in bodies too."""
    dtypes = _STORED[precision]
    graphs = {id(graph): graph for graph in (model.graph, *model.graph.subgraphs())}
    tensors = (v.const_value for g in graphs.values() for v in g.initializers.values())
    return sum(
        tensor is not None and tensor.dtype.name in dtypes and len(tensor.shape) > 1
        for tensor in tensors
    )


def _outcome(
    judge: Judge | None, session: HostSession, noise: dict[str, float], limit: float
) -> BudgetOutcome | None:
    if judge is not None:
        metric, reference, drop = judge.metric, judge.reference, judge.drop(session)
    elif noise:
        metric, reference, drop = "noise", 0.0, max(noise.values())
    else:
        return None
    drop = min(drop, 1e30)
    return BudgetOutcome(
        metric=metric,
        limit=limit,
        reference=reference,
        before=drop,
        after=drop,
        evaluations=1,
        probes=0,
        kept=(),
        bytes_added=0,
        float_share=None,
        expected_time=None,
    )


def _kept(model: ir.Model, samples: Sequence[Sample]) -> list[Kept]:
    if not samples:
        return []
    session = HostSession(model)
    return [Kept(inputs=one, answers=session.run(one)) for one in samples]
