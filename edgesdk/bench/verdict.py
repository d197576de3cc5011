"""Judge a measurement in one word: did the work run where it was planned, and right?"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from edgesdk.bench.measurements import Detail
from edgesdk.bench.offload_values import Offload
from edgesdk.bench.values import (
    Accuracy,
    AccuracyResult,
    PartRecord,
    PlacementRow,
    ReferenceOutput,
    Verdict,
)

__all__ = [
    "MIN_AGREEMENT",
    "MIN_COSINE",
    "WORTH_SAYING",
    "choose_verdict",
    "ran_on_accelerator",
    "ran_wholly_on_accelerator",
]

#: Below this cosine similarity to the unquantized model an output is suspect. Eight-bit models
#: that keep their accuracy stay well above it; one with a broken scale falls far below.
MIN_COSINE = 0.9
#: Suspect where the 95 % interval of the top-1 agreement lies wholly below this.
MIN_AGREEMENT = 0.8

#: From this share of the time on, ops that did not run where they were planned decide.
WORTH_SAYING = 0.01

_TOLD_DISAGREEMENTS = 5
_CPU_WORDS = ("cpu", "xnnpack")
_DELEGATED_WORDS = ("delegate", "edgetpu")


def ran_on_accelerator(detail: Detail) -> bool | None:
    """Say whether a runtime's own words show that an accelerator did the work, if they tell.

    Read are, the surest first: ``accelerator`` (a bool); ``assignment``, nodes by onnxruntime
    provider; ``ops``, of which a LiteRT delegate replaces those it takes;
    ``execution_devices`` and ``device`` of OpenVINO. A list of providers or a delegate shows
    what was offered the work, so only its absence proves anything.
    """
    said = detail.get("accelerator")
    if isinstance(said, bool):
        return said
    assigned = _counts(detail, "assignment.")
    if assigned:
        return any(not _is_cpu(provider) for provider in assigned)
    ops = _counts(detail, "ops.")
    if ops and detail.get("delegate") is not None:
        return any(word in op.lower() for op in ops for word in _DELEGATED_WORDS)
    for name in ("execution_devices", "device"):
        value = detail.get(name)
        names = [str(v) for v in (value if isinstance(value, tuple) else (value,)) if v]
        if names and not names[0].startswith("AUTO"):
            return any(not _is_cpu(entry) for entry in names)
    providers = detail.get("providers")
    if isinstance(providers, tuple) and providers and all(_is_cpu(p) for p in providers):
        return False
    return False if "delegate" in detail and detail["delegate"] is None else None


def ran_wholly_on_accelerator(detail: Detail) -> bool | None:
    """Say the same of all the work: None also where both did some of it."""
    ran = ran_on_accelerator(detail)
    shared = any(_is_cpu(name) for name in _counts(detail, "assignment."))
    others = _counts(detail, "ops.")
    shared = shared or any(
        not any(word in op.lower() for word in _DELEGATED_WORDS) for op in others
    )
    return None if ran and shared else ran


def _is_cpu(name: object) -> bool:
    return str(name).lower().lstrip("(").startswith(_CPU_WORDS)


def _counts(detail: Detail, prefix: str) -> dict[str, int]:
    return {
        name.removeprefix(prefix): count
        for name, count in detail.items()
        if name.startswith(prefix) and type(count) is int and count > 0
    }


def choose_verdict(
    *,
    measured: bool,
    parts: Sequence[PartRecord],
    predicted: Sequence[PlacementRow] = (),
    actual: Sequence[PlacementRow],
    accelerators: Collection[str],
    accuracy: Accuracy,
    offload: Offload | None = None,
) -> tuple[Verdict, tuple[str, ...]]:
    """Give the first verdict of `VERDICTS` that applies, with what it rests on.

    Args:
        measured: Whether there is any latency sample.
        parts: The bundle's parts.
        predicted: Where the plan put nodes.
        actual: One row for each part, as it ran.
        accelerators: Ids of the target's backends that are not its CPU.
        accuracy: What is known of the outputs.
        offload: What each op ran on, where the device was asked and tells; it goes before what
            runtimes say of themselves, which is no more than what they were offered.
    """
    doubts = _doubts(accuracy)
    if doubts:
        return "accuracy-suspect", doubts
    if not measured:
        return "not-measured", ("the device gave no latency sample",)
    planned = [part for part in parts if part.backend in accelerators]
    if not planned:
        return _on_the_cpu(predicted, actual)
    by_part, fell = _by_parts(planned, actual)
    by_op = None if offload is None else _by_ops(offload, accelerators)
    return by_part if by_op is None else (by_op[0], (*fell, *by_op[1]))


def _by_parts(
    planned: Sequence[PartRecord], actual: Sequence[PlacementRow]
) -> tuple[tuple[Verdict, tuple[str, ...]], tuple[str, ...]]:
    """Judge by what each runtime says of its part; give those that fell back once more."""
    ran: Mapping[int, PlacementRow] = dict(enumerate(actual))
    fell, unknown = [], []
    for part in planned:
        row = ran.get(part.index)
        if row is None or row.accelerator is None:
            unknown.append(f"{part.runtime} does not tell where part {part.index} ran")
        elif not row.accelerator:
            fell.append(f"part {part.index} was planned for {part.backend}: {row.detail}")
    verdict: Verdict = "accelerated"
    reasons = tuple(row.detail for row in actual)
    if fell:
        verdict = "fell-back-to-cpu" if len(fell) == len(planned) else "partly-fell-back"
        reasons = (*fell, *unknown)
    elif unknown:
        verdict, reasons = "placement-unknown", tuple(unknown)
    return (verdict, reasons), tuple(fell)


def _by_ops(
    offload: Offload, accelerators: Collection[str]
) -> tuple[Verdict, tuple[str, ...]] | None:
    """Judge by what ops ran on; None where some of those that were planned do not tell.

    What was planned for an accelerator and ran on the CPU counts from `WORTH_SAYING` of the
    time on; every such op is in the report's list all the same.
    """
    planned = [op for op in offload.ops if op.predicted in accelerators]
    fell = [op for op in planned if op.accelerator is False]
    if not planned or any(op.accelerator is None for op in planned):
        return None
    if fell and any(op.share is None for op in fell):
        return None
    told = offload.disagreements[:_TOLD_DISAGREEMENTS]
    more = offload.disagreeing_ops - len(told)
    reasons = (*told, *((f"{more} more ops ran elsewhere than planned",) if more > 0 else ()))
    if len(fell) == len(planned):
        return "fell-back-to-cpu", reasons
    if sum(op.share or 0.0 for op in fell) >= WORTH_SAYING:
        return "partly-fell-back", reasons
    share = offload.accelerator_share
    ran = () if share is None else (f"{share:.1%} of the time ran on the accelerator",)
    return "accelerated", (*ran, *reasons)


def _on_the_cpu(
    predicted: Sequence[PlacementRow], actual: Sequence[PlacementRow]
) -> tuple[Verdict, tuple[str, ...]]:
    """Judge a bundle that has nothing for an accelerator: was that the plan?"""
    told = tuple(row.detail for row in actual)
    lost = [row.backend for row in predicted if row.accelerator]
    if not lost:
        return "cpu-as-planned", told
    built = f"nothing was built for {', '.join(lost)}, for which nodes were planned"
    return "fell-back-to-cpu", (built, *told)


def _doubts(accuracy: Accuracy) -> tuple[str, ...]:
    found = []
    if accuracy.host_check is not None and not accuracy.host_check.passed:
        wrong = [o.name for o in accuracy.host_check.outputs if not o.within]
        found.append(f"outputs differ from the host's: {', '.join(wrong) or 'unnamed'}")
    found += [doubt for output in accuracy.reference for doubt in _reference_doubts(output)]
    ours, floats = accuracy.labelled, accuracy.labelled_reference
    if ours is not None and floats is not None and _clearly_worse(ours, floats):
        found.append(
            f"{ours.metric} is {ours.value:.4g}, {floats.value:.4g} with the unquantized model,"
            " and their intervals do not meet"
        )
    return tuple(found)


def _clearly_worse(ours: AccuracyResult, floats: AccuracyResult) -> bool:
    """Say whether a rate is so much lower that chance does not explain it."""
    if ours.kind != "rate" or ours.upper is None or floats.lower is None:
        return False
    return ours.metric == floats.metric and ours.upper < floats.lower


def _reference_doubts(output: ReferenceOutput) -> list[str]:
    from edgesdk.data.metrics import wilson_interval

    doubts = []
    if output.cosine is not None and output.cosine < MIN_COSINE:
        doubts.append(
            f"{output.name} has a cosine similarity of {output.cosine:.3f} to the unquantized"
            f" model (at least {MIN_COSINE})"
        )
    if output.top1_agreement is not None and output.rows:
        agreeing = round(output.top1_agreement * output.rows)
        if wilson_interval(agreeing, output.rows)[1] < MIN_AGREEMENT:
            doubts.append(
                f"{output.name} agrees with the unquantized model in {agreeing} of"
                f" {output.rows} rows (at least {MIN_AGREEMENT:.0%})"
            )
    return doubts
