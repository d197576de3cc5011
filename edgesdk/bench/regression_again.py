"""The second look of a gate: measure on the device before a regression is believed.

Where the reference's bundle is at hand and is another one, both are measured in turns on the
device: what the device itself has become since hits both. Else ours alone is measured once more
and held against what was recorded. What is current there stays so: a bundle that the device
does not hold is sent and checked, and becomes its candidate.
"""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING

from edgesdk.bench.compare import compare_bundles
from edgesdk.bench.regression import look_of_comparison, look_of_ratio
from edgesdk.bench.regression_ratio import ratio_of_medians
from edgesdk.bench.run import take_measurements
from edgesdk.deploy.deploy import prove_bundle
from edgesdk.errors import ProtocolError
from edgesdk.progress import OnProgress, ignore_progress
from edgesdk.wire import codes

if TYPE_CHECKING:
    from edgesdk.bench.compare_values import Comparison
    from edgesdk.bench.regression_values import Look
    from edgesdk.bench.values import BenchmarkReport, BenchSpec
    from edgesdk.bundle import Bundle
    from edgesdk.deploy.delta_bases import Bases
    from edgesdk.devices.session import Session

__all__ = ["look_again"]


#: An interval as wide as this says too little; it is tried once more, this much longer.
_COARSE, _LONGER = 1.1, 3.0
#: Of a spec, the scenario, processors and batch that measuring in turns is like.
_IN_TURNS = ("single-stream", None, 1)


def look_again(
    session: Session,
    ours: Bundle,
    theirs: Bundle | None,
    *,
    report: BenchmarkReport,
    reference: BenchmarkReport,
    limit: float,
    seconds: float,
    seed: int | None = None,
    bases: Bases | None = None,
    on_progress: OnProgress = ignore_progress,
) -> Look:
    """Measure whether ours is slower than the reference by more than ``limit``.

    Args:
        session: The device.
        ours: The bundle that is suspected.
        theirs: The reference's bundle; None where it is not at hand.
        report: What was recorded of ours: its spec is measured by.
        reference: What was recorded of theirs.
        limit: The share by which ours may take longer.
        seconds: How long measuring in turns may take; three times as long is added where
            that was too coarse.
        seed: What the order of blocks is drawn with; one is drawn where it is None.
        bases: For deltas, see `edgesdk.deploy.deploy.deploy_bundle`.
        on_progress: Told of every step.

    Raises:
        DeviceError: The device refuses a bundle, or failed.
        LinkError: The link broke.
        InputError: Nothing can be compared.
    """
    prove_bundle(ours, session, bases=bases, on_progress=on_progress)
    if theirs is None:
        why = "the bundle of the reference is not at hand"
    elif theirs.id == ours.id:
        why = "both have the same bundle, so measuring in turns would show nothing"
    elif (report.spec.scenario, report.spec.cpus, report.spec.batch) != _IN_TURNS:
        why = "only a single stream without batches on any processor can be measured in turns"
    else:
        prove_bundle(theirs, session, bases=bases, on_progress=on_progress)
        try:
            comparison = _compare(
                session,
                ours,
                theirs,
                spec=report.spec,
                seconds=seconds,
                seed=seed,
                on_progress=on_progress,
            )
        except ProtocolError as exc:
            if exc.facts.get("code") != codes.UNKNOWN_OP:
                raise
            why = "the agent there is too old to measure in turns"
        else:
            return look_of_comparison(comparison, limit=limit)
    began_s = time.monotonic()
    measured = take_measurements(
        session,
        bundle=ours,
        spec=replace(report.spec, fresh=True),
        step="measure again",
        on_progress=on_progress,
    )
    return look_of_ratio(
        ratio_of_medians(measured.samples_ms, reference.latency.samples_ms),
        kind="fresh",
        limit=limit,
        seconds=time.monotonic() - began_s,
        notes=(f"not in turns: {why}",),
    )


def _compare(
    session: Session,
    ours: Bundle,
    theirs: Bundle,
    *,
    spec: BenchSpec,
    seconds: float,
    seed: int | None,
    on_progress: OnProgress,
) -> Comparison:
    """Measure in turns, and once more for longer where that says too little.

    How wide the interval is decides that, not where it lies: what a comparison shows by chance
    is not given a second chance.
    """

    def compare(span_s: float) -> Comparison:
        return compare_bundles(
            session,
            ours,
            theirs,
            spec=spec,
            seconds=span_s,
            seed=seed,
            on_progress=on_progress,
        )

    found = compare(seconds)
    if found.upper <= _COARSE * found.lower:
        return found
    longer = compare(_LONGER * seconds)
    note = f"{seconds:g} s were too coarse to tell, so it was measured for longer"
    return replace(longer, notes=(note, *longer.notes))
