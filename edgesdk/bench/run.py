"""Ask a device to measure a bundle, and take the answer apart."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

from edgesdk.bench.live import read_live
from edgesdk.bench.measurements import Measurements, read_measurements
from edgesdk.bench.values import MAX_SAMPLES, BenchSpec
from edgesdk.bundle import Bundle
from edgesdk.progress import OnProgress, Progress, ignore_progress
from edgesdk.wire.frames import Frame

__all__ = ["BenchSession", "take_measurements"]

#: Time for everything but the counted runs: a cold start, loading, warm-up.
_ALLOWANCE_S = 900.0
#: Where the spec gives no duration, only the number of runs.
_UNBOUNDED_S = 24 * 3600.0


class BenchSession(Protocol):
    """What this package needs of a conversation with an agent.

    ``request`` waits for the reply up to ``timeout_s``, calls ``on_event`` with the meta of
    each event before it, and raises for a reply that is not ok.
    """

    device_name: str

    def request(
        self,
        op: str,
        meta: Mapping[str, Any] | None = None,
        body: bytes = b"",
        *,
        timeout_s: float = ...,
        on_event: Callable[[Mapping[str, Any]], None] | None = None,
    ) -> Frame:
        """Send one request and give its reply."""


def take_measurements(
    session: BenchSession,
    *,
    bundle: Bundle,
    spec: BenchSpec,
    step: str | None = None,
    on_progress: OnProgress = ignore_progress,
) -> Measurements:
    """Measure ``bundle``, which the device must hold and have checked, as ``spec`` says.

    Runs use the inputs of the check vectors in turn and are made one after the other. The
    device stops at ``spec.runs`` or ``spec.duration_s``, whichever comes first.

    Args:
        session: A conversation with the device's agent.
        bundle: The bundle to measure; it is asked for by id, not by slot.
        spec: How often, how long, under which circumstances.
        step: What to call this in progress; the bundle's precision tells where it is None.
        on_progress: Told about counted runs.

    Raises:
        DeviceError: The device does not hold the bundle, or its worker failed.
        LinkError: The connection broke, or the answer makes no sense.
    """
    step = step or f"measure {bundle.precision}"
    asked = {
        "warmup_runs": spec.warmup_runs,
        "runs": spec.runs,
        "duration_s": spec.duration_s,
        "threads": spec.threads,
        "fresh": spec.fresh,
        "sample_conditions": spec.sample_conditions,
    }
    if spec.runs == 0:
        asked["runs"] = MAX_SAMPLES
    timeout_s = (_UNBOUNDED_S if spec.duration_s is None else spec.duration_s) + _ALLOWANCE_S
    reply = session.request(
        "bench",
        {"release": bundle.id, "spec": asked},
        timeout_s=timeout_s,
        on_event=lambda event: _tell(event, step, on_progress),
    )
    measured = read_measurements(reply, device=session.device_name)
    done = len(measured.samples_ms)
    on_progress(Progress(step=step, done=done, total=done, unit="runs"))
    return measured


def _tell(event: Mapping[str, Any], step: str, on_progress: OnProgress) -> None:
    """Pass a device's progress on, if it is one that makes sense."""
    done, total = event.get("done"), event.get("total")
    if event.get("event") != "progress" or type(done) is not int or done < 0:
        return
    known = total if type(total) is int and total >= done else None
    live = read_live(event.get("live"))
    on_progress(Progress(step=step, done=done, total=known, unit="runs", live=live))
