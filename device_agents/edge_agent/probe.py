"""The latency probe: a short measurement of a release on this device, and what it may take.

The median of a few runs of the check vectors. A release that becomes current may take
`SLOWER` times what the current one took in its own probe, if both are of one name, precision
and target (another model may be slower for good reasons), or what the deployment says. On
probation it may take `SLOWER_ON_PROBATION` times what it took before: the device is at work
then. A probe above its bound is measured again: other load slows a few runs down, not all.
"""

from __future__ import annotations

import array
import json
import sys
from typing import TYPE_CHECKING, Any, Dict, List, Optional

from edge_agent.middle import middle_of
from edge_agent.refusals import Refused
from edgesdk.wire import codes

if TYPE_CHECKING:
    from edge_agent.agent import Agent
    from edge_agent.loading import Loaded

__all__ = [
    "SLOWER",
    "SLOWER_ON_PROBATION",
    "Bound",
    "bound_of",
    "bound_on_probation",
    "measure",
    "median_us",
    "require",
]

SLOWER = 2.0
SLOWER_ON_PROBATION = 3.0
#: Added to every bound that comes from a measurement: below it timers and schedulers decide.
_SLACK_US = 500.0
_RUNS = 20
_WARMUP_RUNS = 2
_DURATION_S = 0.5
_TRIES = 3


class Bound:
    """What a release may take: ``us`` microseconds, or anything where that is None."""

    def __init__(self, us: Optional[float], why: str) -> None:
        self.us = us
        self.why = why

    def allows(self, us: Optional[float]) -> bool:
        """Say whether a probe that took ``us`` is within it; none that is known is not."""
        return self.us is None or (us is not None and us <= self.us)


def median_us(passed: Optional[Dict[str, Any]]) -> Optional[float]:
    """What the probe took that was recorded with a passed check, or None."""
    reply = passed.get("reply") if isinstance(passed, dict) else None
    latency = reply.get("latency") if isinstance(reply, dict) else None
    value = latency.get("median_us") if isinstance(latency, dict) else None
    return float(value) if isinstance(value, (int, float)) else None


def _recorded_us(agent: Agent, bundle: str) -> Optional[float]:
    return median_us(agent.releases.pass_record(bundle))


def _kind(manifest: Dict[str, Any]) -> Any:
    return manifest["name"], manifest["precision"], manifest["target"].get("name")


def bound_of(
    agent: Agent, bundle: str, manifest: Dict[str, Any], max_latency_us: Optional[float]
) -> Bound:
    """Give what a release may take that is about to become current."""
    if max_latency_us is not None:
        return Bound(max_latency_us, "as this deployment asks")
    current = agent.slots.bundle("current")
    if current is None or current == bundle:
        return Bound(None, "")
    held = agent.releases.manifest(current)
    known_us = _recorded_us(agent, current)
    if held is None or known_us is None or _kind(held) != _kind(manifest):
        return Bound(None, "")
    why = "{:g} times what the current release takes".format(SLOWER)
    return Bound(SLOWER * known_us + _SLACK_US, why)


def bound_on_probation(agent: Agent, bundle: str, max_latency_us: Optional[float]) -> Bound:
    """Give what the current release may take while it is on probation."""
    if max_latency_us is not None:
        return Bound(max_latency_us, "as its deployment asked")
    known_us = _recorded_us(agent, bundle)
    if known_us is None:
        return Bound(None, "")
    why = "{:g} times what it took before".format(SLOWER_ON_PROBATION)
    return Bound(SLOWER_ON_PROBATION * known_us + _SLACK_US, why)


def measure(
    loaded: Loaded, vectors: List[Dict[str, Any]], bound: Bound, timeout_s: float
) -> Dict[str, Any]:
    """Time a release that a worker holds; above its bound again, and the best is what counts.

    Returns:
        ``median_us`` and ``runs``.
    """
    request = {
        "warmup_runs": _WARMUP_RUNS,
        "runs": _RUNS,
        "duration_s": _DURATION_S,
        "vectors": vectors,
    }
    best = None  # type: Optional[Dict[str, Any]]
    for _ in range(_TRIES):
        reply = loaded.worker.request(
            {"op": "bench"},
            json.dumps(request).encode("utf-8"),
            timeout_s=timeout_s,
            doing="running the latency probe",
            each_event_s=timeout_s,
        )
        found_us = middle_of(_samples(reply.body)) / 1e3
        if best is None or found_us < best["median_us"]:
            best = {"median_us": found_us, "runs": reply.meta["runs"]}
        if bound.allows(found_us):
            break
    assert best is not None
    return best


def _samples(body: bytes) -> Any:
    samples = array.array("Q")
    samples.frombytes(body)
    if sys.byteorder == "big":
        samples.byteswap()
    if not samples:
        raise Refused(codes.WORKER_FAILED, "the latency probe gave no samples")
    return samples


def require(agent: Agent, bundle: str, bound: Bound) -> None:
    """Hold a release that is about to become current to its bound.

    Raises:
        Refused: Its recorded probe took longer, or there is none.
    """
    us = _recorded_us(agent, bundle)
    if bound.allows(us):
        return
    seen = "has no latency probe" if us is None else "takes {:.3f} ms".format(us / 1e3)
    raise Refused(
        codes.TOO_SLOW,
        "release {} {} in an inference on this device (at most {:.3f} ms, {})".format(
            bundle[:12], seen, (bound.us or 0.0) / 1e3, bound.why
        ),
        bundle=bundle,
        median_us=us,
        max_latency_us=bound.us,
    )
