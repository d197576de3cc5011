"""Ask a device what it ran where, and set that beside the plan, in share of time.

What counts as on the accelerator is what its ops took there, by the runtime's own word. All
else is off it: ops on the CPU, ops and parts that do not tell, and what lies between them:
launches, copies, conversions, the hand-over from part to part. The time of one inference, and
what each part takes of it, are measured without any profiling. The times of ops are taken apart
and scaled to their part, down where they add up to more than it (profiling costs time); those
of a runtime without a clock for ops are its part's, spread over all of it. Nothing of this runs
while latency is measured.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from edgesdk.bench.judged import describe_offload
from edgesdk.bench.offload_values import Offload
from edgesdk.bench.predicted import predicted_nodes
from edgesdk.bench.run import BenchSession
from edgesdk.bench.told import read_told
from edgesdk.bundle import Bundle
from edgesdk.errors import BundleError, DataError, DeviceError, EdgeError, ProtocolError
from edgesdk.progress import OnProgress, Progress, ignore_progress
from edgesdk.wire import codes

if TYPE_CHECKING:
    from edgesdk.profiles.values import TargetProfile

__all__ = ["ask_offload", "offload_unknown"]

_RUNS = 20
_TIMEOUT_S = 300.0
#: What the link may add to the time the device takes.
_GRACE_S = 60.0
#: How long to look, once all is loaded, on a target with an accelerator and on one without.
_BUDGET_S = {True: 12.0, False: 4.0}


def ask_offload(
    session: BenchSession,
    bundle: Bundle,
    *,
    profile: TargetProfile | None,
    threads: int | None = None,
    on_progress: OnProgress = ignore_progress,
) -> Offload:
    """Ask what of ``bundle``, which the device must hold, runs where; it need not be active.

    Where the device refuses or gives no sense, the answer says so in `Offload.why`.

    Args:
        session: A conversation with the device's agent.
        bundle: What is asked about; the plan in it is what the answer is compared with.
        profile: The target, which says what of it is an accelerator.
        threads: Threads of the runtime; None leaves the bundle's own setting.
        on_progress: Told which part is being looked at.

    Raises:
        LinkError: The connection broke.
    """
    step = "what ran where"
    backends: Sequence[Any] = () if profile is None else profile.backends
    asked: dict[str, Any] = {
        "release": bundle.id,
        "runs": _RUNS,
        "timeout_s": _TIMEOUT_S,
        "budget_s": _BUDGET_S[any(backend.accelerator for backend in backends)],
    }
    if threads is not None:
        asked["threads"] = threads
    count = len(bundle.manifest["parts"])
    try:
        reply = session.request(
            "profile",
            asked,
            timeout_s=_TIMEOUT_S + _GRACE_S,
            on_event=_relay(step, count, on_progress),
        )
        told = read_told(reply, parts=count, device=session.device_name)
        nodes = predicted_nodes(bundle)
    except (DeviceError, DataError, BundleError, ProtocolError) as exc:
        if _link_is_broken(exc):
            raise
        return offload_unknown(_why(exc), profile=profile)
    on_progress(Progress(step=step, done=count, total=count))
    return describe_offload(
        told,
        manifest=bundle.manifest,
        nodes=nodes,
        backends=backends,
    )


def offload_unknown(why: str, *, profile: TargetProfile | None) -> Offload:
    """Give the record of a device that could not be asked."""
    backends: Sequence[Any] = () if profile is None else profile.backends
    return Offload(
        has_accelerator=any(backend.accelerator for backend in backends),
        whole_us=None,
        accelerator_share=None,
        cpu_share=None,
        unknown_share=None,
        between_share=None,
        off_accelerator_share=None,
        rows=(),
        parts=(),
        ops=(),
        disagreements=(),
        disagreeing_ops=0,
        why=why,
    )


def _link_is_broken(exc: EdgeError) -> bool:
    """Tell a session that cannot go on from an answer that is refused or makes no sense."""
    return isinstance(exc, ProtocolError) and not {"code", "device"} & exc.facts.keys()


def _why(exc: EdgeError) -> str:
    if exc.facts.get("code") == codes.UNKNOWN_OP:
        return "this agent cannot say what ran where: it is older than this edgesdk"
    return str(exc)[:1000]


def _relay(
    step: str, count: int, on_progress: OnProgress
) -> Callable[[Mapping[str, Any]], None]:
    def relay(event: Mapping[str, Any]) -> None:
        done = event.get("done")
        said = str(event.get("step", ""))
        if event.get("event") == "progress" and said.startswith("asking part"):
            known = done if type(done) is int and 0 <= done <= count else 0
            on_progress(Progress(step=step, done=known, total=count))

    return relay
