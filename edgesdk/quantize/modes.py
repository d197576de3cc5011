"""One entry for every precision: prune if asked, convert, measure, and say what was decided."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from edgesdk.errors import CalibrationError, CompileError, QuantizeError
from edgesdk.model.convert import fit_opset
from edgesdk.model.values import Finding
from edgesdk.profiles.values import QuantScheme
from edgesdk.progress import OnProgress, ignore_progress
from edgesdk.quantize.budget import Budget
from edgesdk.quantize.engine import quantize_static
from edgesdk.quantize.host import sums_saturate
from edgesdk.quantize.judge import Judge
from edgesdk.quantize.means import MEANS
from edgesdk.quantize.prepare import is_quantized, without_qdq
from edgesdk.quantize.prune_spec import PruneSpec
from edgesdk.quantize.pruning import PRUNE_SAMPLES, prune_within
from edgesdk.quantize.state import State
from edgesdk.quantize.timing import time_pair
from edgesdk.quantize.trial import OnSettled
from edgesdk.quantize.uncalibrated import (
    MOMENT_SAMPLES,
    UNCALIBRATED,
    convert_uncalibrated,
    judge_converted,
)
from edgesdk.quantize.values import Quantized

if TYPE_CHECKING:
    import numpy as np
    import onnx_ir as ir

__all__ = ["CALIBRATED", "QDQ_OPSET", "Wanted", "convert", "lowest_opset"]

Sample = dict[str, "np.ndarray"]

#: Precisions whose scales come from calibration data.
CALIBRATED = ("int8", "int16x8", "auto")
#: Per-channel Q/DQ exists since this operator set, of 16 bits since the other.
QDQ_OPSET, _WIDE_OPSET = 13, 21
#: What ``auto`` tries, in this order, of what the backend has.
_AUTO = ("int8", "int16x8", "int8-dynamic", "fp16")
#: Where nobody names a limit, ``auto`` takes no more noise than this (16 dB).
_AUTO_NOISE = 0.025
_SLOWER_CODE = "slower-than-float"
#: The loss allowed where there are labels and nobody names another.
_ONE_POINT = 0.01


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What a conversion shall do.

    Attributes:
        precision: ``fp16``, ``int8``, ``int16x8``, ``int8-dynamic``, ``int4-weights`` or
            ``auto``.
        scheme: Numbers and rules of 8 bits; None where the backend has none.
        precisions: What the backend computes in, for ``auto``.
        runtime: What will run the graph.
        kind: The backend's kind, for what is known of its speed.
        max_opset: The newest opset it loads; None for any.
        max_ir: The newest IR version it loads; None for any.
        keep_float: Node names and operator types that stay in float.
        means: Accuracy means that may be tried.
        max_drop: The largest loss allowed; None for 0.01 where there are labels.
        prune: What to prune first; None for nothing.
        requantize: Take a quantized graph apart and quantize it anew.
        same_machine: Whether this computer stands for the device, so that times say something.
    """

    precision: str
    scheme: QuantScheme | None = None
    precisions: tuple[str, ...] = ()
    runtime: str = "onnxruntime"
    kind: str = "onnxruntime"
    max_opset: int | None = None
    max_ir: int | None = None
    keep_float: tuple[str, ...] = ()
    means: Collection[str] = MEANS
    max_drop: float | None = None
    prune: PruneSpec | None = None
    requantize: bool = False
    same_machine: bool = False


def lowest_opset(precision: str) -> int:
    """Give the oldest opset that a precision can be written in."""
    if precision == "int16x8":
        return _WIDE_OPSET
    return QDQ_OPSET if precision != "fp32" else 1


def convert(
    model: ir.Model,
    samples: Callable[[], Iterable[Sample]] | None,
    wanted: Wanted,
    *,
    total: int | None = None,
    judge: Judge | None = None,
    state: State | None = None,
    on_settled: OnSettled | None = None,
    on_progress: OnProgress = ignore_progress,
) -> Quantized:
    """Convert a simplified float graph.

    Args:
        model: Stays as it is.
        samples: Gives calibration samples anew at every call; None where there are none.
        wanted: What to do.
        total: How many samples there are, if known.
        judge: Measures on labelled data; None where there is none.
        state: Where to leave what a later run can go on from.
        on_settled: Told what a static quantization decided. Who asks for that wants to see it
            where a limit cannot be kept too, so that is a finding then.
        on_progress: Told of every step.

    Raises:
        QuantizeError: It cannot be done; see `quantize_static`.
    """
    job = _Job(
        wanted=wanted,
        samples=samples,
        total=total,
        judge=judge,
        state=state or State(None),
        on_settled=on_settled,
        on_progress=on_progress,
    )
    if is_quantized(model):
        if not wanted.requantize:
            return _passed_through(model, wanted)
        model = without_qdq(model)
        if is_quantized(model):
            raise QuantizeError(
                "cannot requantize the model: it has 8-bit operators that are no Q/DQ pairs",
                hint="give the float model it was made from",
            )
    _check_limit(wanted.max_drop)
    if judge is not None:
        judge.set_reference(model)
    pruned = None
    if wanted.prune is not None:
        model, pruned = prune_within(
            model,
            _some(samples, PRUNE_SAMPLES),
            wanted.prune,
            kind=wanted.kind,
            keep=wanted.keep_float,
            judge=judge,
            limit=job.limit(),
            on_progress=on_progress,
        )
    done = job.auto(model) if wanted.precision == "auto" else job.one(model, wanted.precision)
    if pruned is not None:
        done = replace(done, pruned=pruned[0], findings=(*pruned[1], *done.findings))
    return job.timed(model, done)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Job:
    wanted: Wanted
    samples: Callable[[], Iterable[Sample]] | None
    total: int | None
    judge: Judge | None
    state: State
    on_settled: OnSettled | None
    on_progress: OnProgress

    def one(self, model: ir.Model, precision: str) -> Quantized:
        """Convert to one precision."""
        wanted = self.wanted
        goal = lowest_opset(precision)
        fitted = fit_opset(model, lowest=goal, highest=wanted.max_opset, max_ir=wanted.max_ir)
        if precision in ("int8", "int16x8"):
            return self._static(fitted, precision)
        if precision == "fp32":  # pruned only
            return Quantized(
                model=fitted,
                precision=precision,
                samples=0,
                quantized_nodes=0,
                quantized_weights=0,
            )
        if precision in UNCALIBRATED:
            samples = self._first(MOMENT_SAMPLES)
            done, used = convert_uncalibrated(
                fitted,
                precision,
                samples=samples,
                runtime=wanted.runtime,
                max_opset=wanted.max_opset,
                max_ir=wanted.max_ir,
                keep_float=wanted.keep_float,
                reduce_range=self._narrow(),
                on_progress=self.on_progress,
            )
            return judge_converted(
                model,
                done,
                precision,
                samples=samples,
                used=used,
                judge=self.judge,
                limit=self.limit(),
                required=wanted.max_drop is not None or wanted.precision == "auto",
            )
        raise QuantizeError(
            f"cannot quantize to {precision!r}: there is no such precision",
            hint=f"there are {', '.join(_AUTO)} and int4-weights",
        )

    def auto(self, model: ir.Model) -> Quantized:
        """Take the first precision that keeps the budget; float where none does.

        One that is slower than float in a sign test is passed over: that must not be chance,
        for the same input shall give the same bundle.
        """
        tried: list[str] = []
        can = [name for name in _AUTO if name in self.wanted.precisions]
        for precision in can:
            if precision in CALIBRATED and (self.samples is None or not self.wanted.scheme):
                continue
            try:
                done = self.timed(model, self.one(model, precision))
            except CalibrationError:  # the data are at fault, not the precision
                raise
            except (CompileError, QuantizeError) as exc:
                tried.append(f"{precision}: {exc}")
                continue
            if any(finding.code == _SLOWER_CODE for finding in done.findings):
                # how much slower would make a bundle of every build
                tried.append(f"{precision}: float is faster on this computer")
                continue
            return replace(done, findings=(*done.findings, *_passed_over(tried)))
        return Quantized(
            model=fit_opset(
                model, lowest=1, highest=self.wanted.max_opset, max_ir=self.wanted.max_ir
            ),
            precision="fp32",
            samples=0,
            quantized_nodes=0,
            quantized_weights=0,
            findings=_passed_over(tried),
        )

    def timed(self, model: ir.Model, done: Quantized) -> Quantized:
        """Add times of both graphs here, and a remark where the new one is slower.

        Where this computer cannot tell, or has told, the result stays as it is.
        """
        samples = self._first(1)
        told = done.measured_ms is not None or done.precision == "fp32"
        if told or not samples or not self.wanted.same_machine:
            return done
        times = time_pair(model, done.model, samples[0])
        found = done.findings
        if times.is_slower:
            message = (
                f"the {done.precision} graph takes {times.after_ms:.3g} ms on this computer, "
                f"the float one {times.before_ms:.3g} ms (slower in {times.slower} of "
                f"{times.pairs} pairs)"
            )
            finding = Finding(
                code=_SLOWER_CODE,
                severity="warning",
                message=message,
                hint="build with --precision fp32, unless size is what matters",
            )
            found = (*found, finding)
        medians = {"float": times.before_ms, done.precision: times.after_ms}
        return replace(done, measured_ms=medians, findings=found)

    def _static(self, model: ir.Model, precision: str) -> Quantized:
        scheme = self.wanted.scheme
        if self.samples is None or scheme is None:
            raise QuantizeError(
                f"cannot quantize to {precision}: "
                + ("there is no calibration data" if scheme else "the backend names no scheme"),
                hint="give typical inputs with --calib, or use --precision fp32",
            )
        if precision == "int16x8":
            scheme = replace(scheme, activations="int16-symmetric")
        if self._narrow():
            scheme = replace(scheme, reduce_range=True)
        limit, budget = self.limit(), None
        if limit is not None:
            budget = Budget(
                limit=limit,
                judge=self.judge,
                required=self.on_settled is None
                and (self.wanted.max_drop is not None or self.wanted.precision == "auto"),
            )
        return quantize_static(
            model,
            self.samples(),
            scheme=scheme,
            precision=precision,
            keep_float=self.wanted.keep_float,
            runtime=self.wanted.runtime,
            means=self.wanted.means,
            budget=budget,
            total=self.total,
            state=self.state.part(precision),
            on_settled=self.on_settled,
            on_progress=self.on_progress,
        )

    def limit(self) -> float | None:
        """Give the largest loss allowed; None for any."""
        if self.wanted.max_drop is not None:
            return self.wanted.max_drop
        if self.judge is not None:
            return _ONE_POINT
        return _AUTO_NOISE if self.wanted.precision == "auto" else None

    def _narrow(self) -> bool:
        """Say whether weights keep to 7 bits because this very computer's sums saturate."""
        return self.wanted.same_machine and sums_saturate()

    def _first(self, count: int) -> list[Sample]:
        return _some(self.samples, count)


def _check_limit(limit: float | None) -> None:
    if limit is None:
        return
    if isinstance(limit, bool) or not isinstance(limit, int | float) or not 0 <= limit <= 1:
        raise QuantizeError(
            f"cannot allow a drop of {limit!r} (expected a share from 0 to 1)",
            hint="0.01 is one point, or one per cent",
        )


def _some(samples: Callable[[], Iterable[Sample]] | None, count: int) -> list[Sample]:
    return [] if samples is None else list(itertools.islice(samples(), count))


def _passed_over(tried: list[str]) -> tuple[Finding, ...]:
    return tuple(
        Finding(code="precision-passed-over", severity="info", message=f"not taken: {text}")
        for text in tried
    )


def _passed_through(model: ir.Model, wanted: Wanted) -> Quantized:
    """Leave a graph that arrives quantized as it is, and say so."""
    finding = Finding(
        code="already-quantized",
        severity="warning",
        message="the model arrives quantized, so it is deployed with its own numbers",
        hint="to quantize it anew say requantize: true in a recipe; better, give the float "
        "model it was made from",
    )
    return Quantized(
        model=fit_opset(model, lowest=1, highest=wanted.max_opset, max_ir=wanted.max_ir),
        # whatever was asked for, these are its own whole numbers
        precision="int16x8" if wanted.precision == "int16x8" else "int8",
        samples=0,
        quantized_nodes=0,
        quantized_weights=0,
        findings=(finding,),
    )
