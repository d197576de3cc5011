"""How good a release on a device is on labelled data, beside the unquantized model.

Both run the same samples, so what is said of their difference is paired.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from edgesdk.bench.accuracy import Run, need_labels, no_samples, run_samples
from edgesdk.bench.streaming import stream_samples
from edgesdk.data.judging import Judge, Reduction, plan_reduction
from edgesdk.errors import EdgeError, OutputError
from edgesdk.progress import OnProgress, ignore_progress

if TYPE_CHECKING:
    from edgesdk.data import Dataset
    from edgesdk.data.measures import Measure
    from edgesdk.devices.session import Session

__all__ = [
    "EVALUATION_SCHEMA",
    "Difference",
    "Evaluation",
    "MetricResult",
    "evaluate_release",
    "write_evaluation",
]

EVALUATION_SCHEMA = "edgesdk.evaluation/1"


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricResult:
    """One metric of one side, with its 95 % interval; null ends where none can be stated."""

    metric: str
    better: Literal["larger", "smaller"]
    value: float
    lower: float | None
    upper: float | None
    method: str
    """How the interval was found."""
    rows: int
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """A metric on the device less the same metric of the unquantized model, paired by row."""

    metric: str
    value: float
    lower: float | None
    upper: float | None
    method: str
    p_value: float | None
    """Of the hypothesis that both are alike (McNemar's exact test for rates)."""
    only_device: int | None
    """Rows that the device alone has right; null where rows are not right or wrong."""
    only_reference: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """What labelled data gave on a device."""

    bundle: str
    device: str
    data: str
    started: str
    complete: bool
    """Whether all samples were run; if not, everything is of the first ``samples``."""
    stopped: str
    """What ended it early; empty for a complete one."""
    samples: int
    wanted_samples: int | None
    metrics: tuple[MetricResult, ...]
    reference: tuple[MetricResult, ...]
    """Of the unquantized model on this computer; empty where it was not run."""
    differences: tuple[Difference, ...]
    seconds: float
    """For all samples on the device, from the first byte sent to the last answer."""
    samples_per_s: float
    runtime_ms: float
    """In the runtime, a sample."""
    sent_bytes: int
    kept_samples: int
    """Samples that the device had kept from an earlier evaluation."""
    agent_version: str


def evaluate_release(
    session: Session,
    release: str,
    dataset: Dataset,
    *,
    metrics: Sequence[str] = (),
    roles: Mapping[str, str] | None = None,
    outputs: Sequence[Mapping[str, Any]] = (),
    reference: Run | None = None,
    timeout_s: float = 60.0,
    on_progress: OnProgress = ignore_progress,
) -> tuple[Evaluation, EdgeError | None]:
    """Run labelled data through a release on a device, and the same through the reference.

    Args:
        session: The device.
        release: A bundle id that the device holds.
        dataset: Labelled samples that fit the release.
        metrics: Names as `edgesdk.data.judging.read_metric` gives them; empty for what goes
            with the labels.
        roles: Which output of a detector is what, where its name does not tell.
        outputs: What the release gives (``name``, ``dtype``, ``shape``), where that is known: a
            slow link then carries no more of it than the metrics need.
        reference: Runs the unquantized model on this computer.
        timeout_s: How long one inference may take.
        on_progress: Told of samples, with the rate.

    Returns:
        The evaluation, and what ended it early: then it is of the samples before that.

    Raises:
        DataError: There are no labels or samples, or metrics, labels and outputs do not go
            together, or outputs are NaN.
        DeviceError: The device failed before it had run one sample.
        LinkError: The link broke before that.
    """
    judge = Judge(
        labels=need_labels(dataset),
        metrics=tuple(metrics),
        roles=roles or {},
        spec=dataset.spec,
    )
    started = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    reduction = Reduction()
    if session.channel.traits.compress:
        reduction = plan_reduction(judge.metrics, judge.labels, outputs)
    begun = time.monotonic()
    streamed = stream_samples(
        session,
        release,
        dataset,
        outputs=reduction.outputs,
        top=reduction.top,
        timeout_s=timeout_s,
        partial=True,
        on_progress=on_progress,
    )
    seconds = max(1e-9, time.monotonic() - begun)
    if not streamed.samples:
        raise no_samples(dataset)
    ours = judge.measure(streamed.outputs)
    floats: tuple[Measure, ...] = ()
    if reference is not None:
        floats = judge.measure(
            run_samples(
                reference,
                dataset,
                step="evaluate on the host",
                limit=streamed.samples,
                on_progress=on_progress,
            )
        )
    stopped = streamed.stopped
    evaluation = Evaluation(
        bundle=release,
        device=session.device_name,
        data=dataset.spec,
        started=started,
        complete=stopped is None,
        stopped="" if stopped is None else str(stopped),
        samples=streamed.samples,
        wanted_samples=dataset.count,
        metrics=tuple(_result(each) for each in ours),
        reference=tuple(_result(each) for each in floats),
        differences=tuple(_differences(ours, floats)),
        seconds=seconds,
        samples_per_s=streamed.samples / seconds,
        runtime_ms=streamed.run_ms / streamed.samples,
        sent_bytes=streamed.sent_bytes,
        kept_samples=streamed.kept_samples,
        agent_version=session.hello.agent_version,
    )
    return evaluation, stopped


def _result(measure: Measure) -> MetricResult:
    interval = measure.interval()
    return MetricResult(
        metric=measure.metric,
        better=measure.better,
        value=measure.value,
        lower=interval.lower,
        upper=interval.upper,
        method=interval.method,
        rows=measure.count,
        note=measure.note,
    )


def _differences(ours: Sequence[Measure], floats: Sequence[Measure]) -> list[Difference]:
    by_name = {each.metric: each for each in floats}
    found = []
    for each in ours:
        other = by_name.get(each.metric)
        if other is None:
            continue
        delta = each.minus(other)
        found.append(
            Difference(
                metric=each.metric,
                value=delta.value,
                lower=delta.interval.lower,
                upper=delta.interval.upper,
                method=delta.interval.method,
                p_value=delta.p_value,
                only_device=None if delta.only is None else delta.only[0],
                only_reference=None if delta.only is None else delta.only[1],
            )
        )
    return found


def write_evaluation(evaluation: Evaluation, folder: Path) -> Path:
    """Write ``evaluation.json`` into a folder; give its path.

    Raises:
        OutputError: It cannot be written.
    """
    path = folder / "evaluation.json"
    record = {"schema": EVALUATION_SCHEMA, **asdict(evaluation)}
    try:
        path.write_text(json.dumps(record, indent=2, allow_nan=False) + "\n", encoding="utf-8")
    except OSError as exc:
        raise OutputError(
            f"cannot write {path}: {exc.strerror or exc}",
            hint="is there room, and may you write there?",
            path=str(path),
        ) from exc
    return path
