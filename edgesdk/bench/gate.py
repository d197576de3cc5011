"""The gate of ``--max-cpu-time``: how much of an inference may run off the accelerator."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from edgesdk.bench.judged import op_label, place_text
from edgesdk.bench.offload_values import Offload, OffloadOp
from edgesdk.errors import FindingsError, InputError

if TYPE_CHECKING:
    from edgesdk.profiles.values import TargetProfile

__all__ = ["check_cpu_time", "read_limit", "require_accelerator"]

_OPTION = "--max-cpu-time"
_SHOWN_OPS = 3
_TOLD_OPS = 50


def read_limit(text: str) -> float:
    """Read ``5%`` or ``0.05``; give a share from 0 to 1.

    Raises:
        InputError: It is something else, or ``1``, which may be meant as either.
    """
    plain = text.strip()
    percent = plain.endswith("%")
    try:
        value = float(plain[:-1]) / 100 if percent else float(plain)
    except ValueError:
        value = -1.0
    if not percent and value == 1.0:
        raise InputError(
            f"cannot use {_OPTION} {plain}: it says all of the time, not one per cent",
            hint="write 1%, or 100% to allow everything",
            max_cpu_time=plain,
        )
    if not 0.0 <= value <= 1.0:
        raise InputError(
            f"cannot use {_OPTION} {plain[:40]!r}: it is no share of the time (expected 0% to "
            "100%)",
            hint="write 5% or 0.05",
            max_cpu_time=plain[:40],
        )
    return value


def require_accelerator(profile: TargetProfile | None, *, target: str) -> None:
    """Refuse a limit that could only be met or missed by its own wording.

    Raises:
        InputError: The target has no accelerator, or is not known here.
    """
    if profile is None:
        raise InputError(
            f"cannot use {_OPTION}: the target {target} is not known here, so nobody can say "
            "what of it is an accelerator",
            hint="name the folder of its profile with --targets-dir or the setting targets_dir",
            target=target,
        )
    if not any(backend.accelerator for backend in profile.backends):
        raise InputError(
            f"cannot use {_OPTION}: {profile.name} has no accelerator, so there is nothing to "
            "limit",
            hint="leave it out; `edgesdk targets show NAME` shows what a target has",
            target=profile.name,
        )


def check_cpu_time(offload: Offload, limit: float, *, after: str = "") -> None:
    """Hold the time off the accelerator against a limit.

    All that was not proven to run on the accelerator counts, so a runtime that does not tell
    fails rather than passes.

    Args:
        offload: What ran where.
        limit: The largest share of one inference.
        after: What the error adds on what became of the release.

    Raises:
        FindingsError: There is more, or the runtimes do not tell.
    """
    share = offload.off_accelerator_share
    if share is None:
        raise FindingsError(
            f"cannot hold the time off the accelerator to {_percent(limit)}: "
            f"{offload.why or _no_times(offload)}{after}",
            hint="replace an older agent with `edgesdk agent install`; without a record of "
            f"what ran where, {_OPTION} always fails",
            limit=limit,
            share=None,
        )
    if share <= limit:
        return
    proven = (offload.cpu_share or 0.0) + (offload.between_share or 0.0)
    worst = sorted(
        (op for op in offload.ops if not op.accelerator and op.share),
        key=lambda op: op.share or 0.0,
        reverse=True,
    )
    named = [f"{op_label(op)} ({place_text(op)}, {op.share:.1%})" for op in worst[:_SHOWN_OPS]]
    if offload.between_share and offload.between_share >= 0.0005:
        named.append(f"launches, copies and hand-over ({offload.between_share:.1%})")
    if proven <= limit and offload.unknown_share:
        raise FindingsError(
            f"cannot prove that at most {_percent(limit)} of the time ran off the accelerator: "
            f"for {offload.unknown_share:.1%} the runtime does not tell: {'; '.join(named)}"
            f"{after}",
            hint="take a runtime that tells (a newer onnxruntime, a device by its own name "
            "instead of AUTO), or leave the limit out",
            **_facts(offload, limit, worst),
        )
    raise FindingsError(
        f"{share:.1%} of the time ran off the accelerator (at most {_percent(limit)}): "
        f"{'; '.join(named)}{after}",
        hint=_hint(offload),
        **_facts(offload, limit, worst),
    )


def _percent(share: float) -> str:
    return f"{100 * share:.4g}%"


def _no_times(offload: Offload) -> str:
    reasons = [part.why for part in offload.parts if part.why]
    return reasons[0] if reasons else "the device gave no times"


def _hint(offload: Offload) -> str:
    kinds = {row.backend: row.accelerator for row in offload.rows}
    built_for = [kinds.get(part.backend) for part in offload.parts]
    if built_for and all(kind is False for kind in built_for):
        return (
            "nothing was built for the accelerator: `edgesdk build` names a compiler that it "
            "lacks, `edgesdk plan` says why nodes are refused (int8 needs --calib)"
        )
    if offload.accelerator_share == 0.0:
        return (
            "nothing ran on the accelerator: is its runtime or delegate installed there? "
            "`edgesdk devices facts` shows what the device has"
        )
    if offload.disagreeing_ops:
        return (
            "the report names each op that ran elsewhere than planned; give the model without "
            "those operators, or a runtime there that takes them"
        )
    return (
        "that is as planned: `edgesdk plan` says why the accelerator refuses each of these "
        "nodes; replace them in the model, or allow more"
    )


def _facts(offload: Offload, limit: float, worst: list[OffloadOp]) -> dict[str, Any]:
    return {
        "limit": limit,
        "share": offload.off_accelerator_share,
        "accelerator_share": offload.accelerator_share,
        "cpu_share": offload.cpu_share,
        "unknown_share": offload.unknown_share,
        "between_share": offload.between_share,
        "ops": [
            {
                "name": op_label(op),
                "op": op.op,
                "where": op.where,
                "planned": op.predicted,
                "share": op.share,
                "derived": op.derived,
            }
            for op in worst[:_TOLD_OPS]
        ],
        "disagreements": list(offload.disagreements),
    }
