"""What check vectors and labelled data say about the outputs on a device.

Check vectors are compared twice: with what the same parts gave on the host that built them, and
with the unquantized model. Labelled data gives a metric with its interval.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from edgesdk.bench.run import BenchSession
from edgesdk.bench.values import (
    Accuracy,
    AccuracyResult,
    CheckedOutput,
    HostCheck,
    ReferenceOutput,
)
from edgesdk.bundle import Bundle
from edgesdk.errors import DataError
from edgesdk.progress import OnProgress, Progress, ignore_progress

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
]

Run = Callable[[dict[str, "np.ndarray"]], dict[str, "np.ndarray"]]

#: Outputs are kept until they are scored together.
_MAX_OUTPUT_BYTES = 1 << 30


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
    from edgesdk.deploy.releases import run_on_device

    def run(sample: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        return run_on_device(session, bundle_id, sample)[0]

    labelled = evaluate_on_device(run, data, where="device", on_progress=on_progress)
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
    return value if value is not None and math.isfinite(value) and value >= 0 else None


def _largest(values: Iterable[float | None]) -> float | None:
    """Give the largest; None as soon as one is unknown, for it might be larger."""
    known = list(values)
    kept = [value for value in known if value is not None]
    return max(kept) if kept and len(kept) == len(known) else None


def _reference(name: str, outputs: list[OutputCheck]) -> ReferenceOutput | None:
    compared = [o for o in outputs if o.reference_max_abs_error is not None]
    if not compared:
        return None
    cosines = [o.reference_cosine for o in compared if o.reference_cosine is not None]
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
    from edgesdk.data.metrics import score_outputs

    labels = dataset.labels
    if labels is None:
        raise DataError(
            f"cannot evaluate on {dataset.spec}: it has no labels",
            hint="add an array called labels, or a folder per class",
        )
    outputs = _all_outputs(run, dataset, f"evaluate on the {where}", on_progress)
    _, score = score_outputs(outputs, labels)
    if not math.isfinite(score.value):
        raise DataError(
            f"cannot evaluate on {dataset.spec}: the outputs hold NaN or infinity",
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


def _all_outputs(
    run: Run, dataset: Dataset, step: str, on_progress: OnProgress
) -> dict[str, np.ndarray]:
    """Run every sample and join the rows of each output that keeps its shape."""
    import numpy as np

    pieces: dict[str, list[np.ndarray]] = {}
    total_bytes = 0
    done = 0
    for done, sample in enumerate(dataset.samples(), start=1):
        for name, output in run(sample).items():
            rows = _rows(output, dataset.batch)
            pieces.setdefault(name, []).append(rows)
            total_bytes += rows.nbytes
        if total_bytes > _MAX_OUTPUT_BYTES:
            raise DataError(
                f"cannot evaluate on {dataset.spec}: the outputs of {done} samples exceed"
                f" {_MAX_OUTPUT_BYTES >> 20} MiB",
                hint="evaluate on fewer samples",
            )
        on_progress(Progress(step=step, done=done, total=dataset.count, unit="samples"))
    if not done:
        raise DataError(
            f"cannot evaluate on {dataset.spec}: it has no samples",
            hint="give data with at least one sample, or leave --data out",
        )
    return {
        name: np.concatenate(group)
        for name, group in pieces.items()
        if len(group) == done and len({(p.shape[1:], p.dtype) for p in group}) == 1
    }


def _rows(output: np.ndarray, batch: int) -> np.ndarray:
    """Give an output whose first axis is the batch; a model without one gets an axis of 1."""
    import numpy as np

    has_batch = output.ndim > 0 and output.shape[0] == batch
    return np.array(output if has_batch or batch != 1 else output[np.newaxis])
