"""What check vectors and labelled data say about the outputs on a device.

Check vectors are compared twice: with what the same parts gave on the host that built them, and
with the unquantized model. Labelled data gives a metric with its interval.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from edgesdk.bench.outputs import Outputs
from edgesdk.bench.run import BenchSession
from edgesdk.bench.streaming import stream_samples
from edgesdk.bench.values import (
    Accuracy,
    AccuracyResult,
    CheckedOutput,
    HostCheck,
    ReferenceOutput,
)
from edgesdk.bundle import Bundle
from edgesdk.data.metrics import has_nan
from edgesdk.errors import DataError
from edgesdk.progress import OnProgress, Progress, RateMeter, ignore_progress

if TYPE_CHECKING:
    import numpy as np

    from edgesdk.data import Dataset
    from edgesdk.deploy.values import OutputCheck, SelfCheck
    from edgesdk.devices.session import Session

__all__ = [
    "Judged",
    "accuracy_of",
    "check_on_device",
    "evaluate_on_device",
    "judge_labelled",
    "judge_outputs",
    "need_labels",
    "no_samples",
    "run_samples",
]

#: More fits no report.
_MAX_AMOUNT = 1e18
Run = Callable[[dict[str, "np.ndarray"]], dict[str, "np.ndarray"]]


def check_on_device(
    session: BenchSession, *, bundle: Bundle, timeout_s: float = 600.0
) -> SelfCheck:
    """Run the check vectors of a bundle that the device holds, also if they passed before.

    A deployment that reused an earlier outcome has no figures against the unquantized model;
    this gives them.

    Raises:
        DeviceError: The device does not hold the bundle, or its worker failed.
        LinkError: The connection broke, or the answer makes no sense.
    """
    from edgesdk.deploy.check import read_self_check

    reply = session.request(
        "check",
        {"bundle": bundle.id, "timeout_s": timeout_s, "force": True},
        timeout_s=timeout_s + 60.0,
    )
    return read_self_check(reply, bundle)


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """What labelled data gave on the device, and with the unquantized model here."""

    labelled: AccuracyResult | None = None
    reference: AccuracyResult | None = None


def judge_outputs(
    session: Session,
    bundle: Bundle,
    *,
    check: SelfCheck | None,
    data: Dataset | None,
    reference: Run | None = None,
    known: Judged | None = None,
    on_progress: OnProgress = ignore_progress,
) -> Accuracy:
    """Judge the outputs of a bundle by check vectors and, where there is some, labelled data.

    Args:
        session: The device, which holds the bundle.
        bundle: What is judged.
        check: The outcome of its check vectors there; they run again where it has none.
        data: Samples to evaluate on; nothing is where they have no labels.
        reference: Runs the unquantized model on this computer, for the same samples.
        known: What the labelled data gave already.
        on_progress: Told of samples.

    Raises:
        DeviceError: The device failed.
        LinkError: The link broke.
        DataError: The labelled data does not go with the outputs.
    """
    if check is None or check.reused:
        # an earlier outcome has no figures against the unquantized model
        check = check_on_device(session, bundle=bundle)
    judged = known or judge_labelled(
        session, bundle.id, data=data, reference=reference, on_progress=on_progress
    )
    return accuracy_of(check, labelled=judged.labelled, labelled_reference=judged.reference)


def judge_labelled(
    session: Session,
    bundle_id: str,
    *,
    data: Dataset | None,
    reference: Run | AccuracyResult | None,
    on_progress: OnProgress = ignore_progress,
) -> Judged:
    """Evaluate a bundle, which need not be active, on labelled data, and the reference too.

    Arguments and errors are those of `judge_outputs`; a ``reference`` that was evaluated on
    these data already is not run again.
    """
    if data is None or data.labels is None:
        return Judged()
    streamed = stream_samples(session, bundle_id, data, on_progress=on_progress)
    if not streamed.samples:
        raise no_samples(data)
    labelled = _score(streamed.outputs.joined(), need_labels(data), data.spec, "device")
    if reference is None or isinstance(reference, AccuracyResult):
        return Judged(labelled=labelled, reference=reference)
    before = evaluate_on_device(reference, data, where="host", on_progress=on_progress)
    return Judged(labelled=labelled, reference=before)


def accuracy_of(
    check: SelfCheck | None,
    *,
    labelled: AccuracyResult | None = None,
    labelled_reference: AccuracyResult | None = None,
) -> Accuracy:
    """Sum up check vectors, output by output, and add what labelled data gave.

    Args:
        check: The outcome on the device, or None if it was not run.
        labelled: The metric of the deployed bundle.
        labelled_reference: The same metric and data with the unquantized model.
    """
    by_name: dict[str, list[OutputCheck]] = {}
    for vector in check.vectors if check is not None else ():
        for output in vector.outputs:
            by_name.setdefault(output.name, []).append(output)
    host = None
    if check is not None and check.vectors:
        host = HostCheck(
            passed=check.passed,
            vectors=len(check.vectors),
            outputs=tuple(_worst(name, group) for name, group in by_name.items()),
        )
    compared = (_reference(name, group) for name, group in by_name.items())
    return Accuracy(
        host_check=host,
        reference=tuple(entry for entry in compared if entry is not None),
        labelled=labelled,
        labelled_reference=labelled_reference,
    )


def _worst(name: str, outputs: list[OutputCheck]) -> CheckedOutput:
    errors = [_amount(output.max_abs_error) for output in outputs]
    allowed = [_amount(output.allowed) for output in outputs]
    return CheckedOutput(
        name=name,
        within=all(output.within for output in outputs),
        max_abs_error=_largest(errors),
        allowed=_largest(allowed),
        mismatches=sum(max(0, output.mismatches) for output in outputs),
        elements=sum(max(0, output.elements) for output in outputs),
    )


def _amount(value: float | None) -> float | None:
    return value if value is not None and 0 <= value <= _MAX_AMOUNT else None


def _largest(values: Iterable[float | None]) -> float | None:
    """Give the largest; None as soon as one is unknown, for it might be larger."""
    known = list(values)
    kept = [value for value in known if value is not None]
    return max(kept) if kept and len(kept) == len(known) else None


def _reference(name: str, outputs: list[OutputCheck]) -> ReferenceOutput | None:
    compared = [o for o in outputs if o.reference_max_abs_error is not None]
    if not compared:
        return None
    known = [o.reference_cosine for o in compared if o.reference_cosine is not None]
    cosines = [cosine for cosine in known if math.isfinite(cosine)]
    agreed = [o.reference_top1_agrees for o in compared if o.reference_top1_agrees is not None]
    return ReferenceOutput(
        name=name,
        vectors=len(compared),
        cosine=max(-1.0, min(1.0, *cosines)) if cosines else None,
        max_abs_error=_largest(_amount(o.reference_max_abs_error) for o in compared),
        top1_agreement=sum(agreed) / len(agreed) if agreed else None,
        rows=len(agreed),
    )


def evaluate_on_device(
    run: Run,
    dataset: Dataset,
    *,
    where: Literal["device", "host"] = "device",
    on_progress: OnProgress = ignore_progress,
) -> AccuracyResult:
    """Run every labelled sample through ``run`` and score the outputs.

    Args:
        run: From inputs by name to outputs by name, for one sample of ``dataset``.
        dataset: Samples with labels, ``dataset.batch`` rows each.
        where: Which side ``run`` runs the model on.
        on_progress: Told about samples.

    Raises:
        DataError: There are no labels or samples, or no output goes with the labels.
    """
    labels = need_labels(dataset)
    outputs = run_samples(
        run, dataset, step=f"evaluate on the {where}", on_progress=on_progress
    )
    return _score(outputs.joined(), labels, dataset.spec, where)


def need_labels(dataset: Dataset) -> np.ndarray:
    """Give the labels of a data set.

    Raises:
        DataError: It has none.
    """
    labels = dataset.labels
    if labels is None:
        raise DataError(
            f"cannot evaluate on {dataset.spec}: it has no labels",
            hint="add an array called labels, or a folder per class",
        )
    return labels


def run_samples(
    run: Run,
    dataset: Dataset,
    *,
    step: str,
    limit: int | None = None,
    on_progress: OnProgress = ignore_progress,
) -> Outputs:
    """Run every sample through ``run``, the first ``limit`` where that is given.

    Raises:
        DataError: There are no samples, or the outputs are too large to keep.
    """
    outputs = Outputs(batch=dataset.batch, spec=dataset.spec)
    total = dataset.count if limit is None else limit
    meter = RateMeter()
    done = 0
    for done, sample in enumerate(itertools.islice(dataset.samples(), limit), start=1):
        outputs.add_sample(done - 1, run(sample))
        meter.note(done)
        on_progress(
            Progress(
                step=step, done=done, total=total, unit="samples", rate_per_s=meter.per_s()
            )
        )
    if not done:
        raise no_samples(dataset)
    return outputs


def no_samples(dataset: Dataset) -> DataError:
    """Give the error for a data set without samples."""
    return DataError(
        f"cannot evaluate on {dataset.spec}: it has no samples",
        hint="give data with at least one sample, or leave --data out",
    )


def _score(
    outputs: dict[str, np.ndarray],
    labels: np.ndarray,
    spec: str,
    where: Literal["device", "host"],
) -> AccuracyResult:
    from edgesdk.data.metrics import score_outputs

    name, score = score_outputs(outputs, labels)
    if not math.isfinite(score.value) or has_nan(outputs[name]):
        raise DataError(
            f"cannot evaluate on {spec}: the outputs hold NaN or infinity",
            hint="look at one sample with edgesdk run, or try --precision fp32",
        )
    return AccuracyResult(
        metric=score.metric,
        kind="error" if score.metric.endswith("error") else "rate",
        value=score.value,
        lower=score.low,
        upper=score.high,
        samples=score.count,
        where=where,
    )
