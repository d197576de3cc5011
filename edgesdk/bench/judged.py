"""From what runtimes said, and the plan, to shares of time and disagreements. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from edgesdk.bench.measurements import RuntimeRecord
from edgesdk.bench.offload_values import Offload, OffloadOp, OffloadPart, OffloadRow
from edgesdk.bench.predicted import (
    PredictedNode,
    match_ops,
    planned_counts,
    planned_shares,
)
from edgesdk.bench.told import Told, ToldOp, ToldPart
from edgesdk.bench.verdict import ran_wholly_on_accelerator

if TYPE_CHECKING:
    from edgesdk.profiles.values import BackendProfile

__all__ = ["describe_offload", "op_label", "place_text"]

_MOST_DISAGREEMENTS = 100
_MOST_NODES_OF_AN_OP = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class _Part:
    """A part of the manifest with what was told of it.

    ``total_us`` is what it takes within the chain; ``alone_us`` by itself, which is how its ops
    were timed.
    """

    told: ToldPart
    backend: str
    served_by: str
    ran: RuntimeRecord | None
    ops: tuple[ToldOp, ...]
    alone_us: float
    total_us: float


def describe_offload(
    told: Told,
    *,
    manifest: Mapping[str, Any],
    nodes: Sequence[PredictedNode],
    backends: Sequence[BackendProfile],
) -> Offload:
    """Set what ran beside what was planned.

    Args:
        told: What the device answered; one record for each part of the manifest.
        manifest: The bundle's.
        nodes: The plan it carries; empty where it carries none.
        backends: Those of the target; empty where it is not known here.
    """
    parts = _parts(told, manifest)
    summed = sum((part.total_us for part in parts), 0.0)
    whole_us = max(summed, told.chain_us or 0.0)
    ops = _ops(parts, nodes, backends, whole_us, manifest)
    has_accelerator = any(backend.accelerator for backend in backends)
    disagreeing = sorted(
        (op for op in ops if op.agrees is False), key=lambda op: op.share or 0.0, reverse=True
    )
    moved = _moved(manifest)
    shares = {
        kind: min(1.0, sum((op.share or 0.0 for op in ops if op.accelerator is kind), 0.0))
        for kind in (True, False, None)
    }
    shares[None] = min(1.0, shares[None] + _untold(parts, ops, whole_us))
    is_timed = whole_us > 0
    rest = max(0.0, 1.0 - sum(shares.values()))
    return Offload(
        has_accelerator=has_accelerator,
        whole_us=whole_us if is_timed else None,
        accelerator_share=shares[True] if is_timed else None,
        cpu_share=shares[False] if is_timed else None,
        unknown_share=shares[None] if is_timed else None,
        between_share=rest if is_timed else None,
        off_accelerator_share=1.0 - shares[True] if is_timed else None,
        rows=_rows(ops, manifest, backends, is_timed=is_timed),
        parts=tuple(_described(part, ops, whole_us) for part in parts),
        ops=ops,
        disagreements=tuple(
            _sentence(op, moved, told) for op in disagreeing[:_MOST_DISAGREEMENTS]
        ),
        disagreeing_ops=sum(op.count for op in disagreeing),
        why=None,
    )


def _parts(told: Told, manifest: Mapping[str, Any]) -> list[_Part]:
    ran = {record.part: record for record in told.runtimes}
    found = []
    for part, record in zip(told.parts, manifest["parts"], strict=True):
        served = ran.get(part.index)
        alone = part.total_us or sum((op.us or 0.0 for op in part.ops), 0.0)
        in_chain = None if not part.share or not told.chain_us else part.share * told.chain_us
        total = alone if in_chain is None else in_chain
        found.append(
            _Part(
                told=part,
                backend=record["backend"],
                served_by=(served.backend if served else None) or record["backend"],
                ran=served,
                ops=part.ops or (_all_of_it(served, total),),
                alone_us=alone or total,
                total_us=total,
            )
        )
    return found


def _all_of_it(ran: RuntimeRecord | None, total_us: float) -> ToldOp:
    """Take a part that tells of no ops as one; its time is measured all the same."""
    detail = {} if ran is None else ran.detail
    known = ("execution_devices", "device", "delegate", "providers")
    where: Any = next((detail[name] for name in known if detail.get(name)), "")
    return ToldOp(
        op="",
        name="",
        where=", ".join(map(str, where)) if isinstance(where, tuple) else str(where),
        accelerator=ran_wholly_on_accelerator(detail),
        us=total_us or None,
        derived=False,
        precision=None,
        count=1,
    )


def _timed(part: _Part, weights: Sequence[float]) -> list[tuple[float | None, bool]]:
    """Give each op's time in microseconds and whether it was worked out.

    Where the runtime has no times, the part's is spread by the plan's shares; where the plan
    has none either, evenly, if all ops ran in one place.
    """
    told = [op.us for op in part.ops]
    if all(us is None for us in told):
        if not sum(weights) and len({op.accelerator for op in part.ops}) == 1:
            weights = [float(op.count) for op in part.ops]  # all of it ran in one place
        total = sum(weights)
        if not total or not part.total_us:
            return [(None, True) for _ in told]
        return [(part.total_us * weight / total, True) for weight in weights]
    summed = sum(us or 0.0 for us in told)
    scale = part.alone_us / summed if summed and part.alone_us else 1.0
    if not all(op.derived for op in part.ops):  # else they are the part's own, spread over it
        scale = min(1.0, scale)
    scale *= part.total_us / part.alone_us if part.alone_us else 1.0
    return [(None if op.us is None else op.us * scale, op.derived) for op in part.ops]


def _ops(
    parts: Sequence[_Part],
    nodes: Sequence[PredictedNode],
    backends: Sequence[BackendProfile],
    whole_us: float,
    manifest: Mapping[str, Any],
) -> tuple[OffloadOp, ...]:
    named, stands_for = match_ops(nodes, [op.name for part in parts for op in part.ops])
    found: list[OffloadOp] = []
    for part in parts:
        first = len(found)
        last = first + len(part.ops)
        weights = [sum(nodes[i].share for i in group) for group in stands_for[first:last]]
        times = _timed(part, weights)
        fallback = None if any(named[first:last]) else _of_part(part, manifest, backends)
        for place, (op, (us, derived)) in enumerate(
            zip(part.ops, times, strict=True), start=first
        ):
            group = stands_for[place]
            predicted = _planned(nodes, named[place]) or fallback
            backend = _backend_of(op, part, backends)
            found.append(
                OffloadOp(
                    part=part.told.index,
                    name=op.name,
                    op=op.op,
                    nodes=tuple(nodes[i].label for i in group[:_MOST_NODES_OF_AN_OP]),
                    predicted=predicted,
                    predicted_share=min(1.0, weights[place - first]) if group else None,
                    backend=backend,
                    where=op.where,
                    accelerator=op.accelerator,
                    time_us=us,
                    share=None if us is None or not whole_us else min(1.0, us / whole_us),
                    derived=derived,
                    precision=op.precision,
                    count=op.count,
                    agrees=_agrees(predicted, backend, op, backends),
                )
            )
    return tuple(found)


def _untold(parts: Sequence[_Part], ops: Sequence[OffloadOp], whole_us: float) -> float:
    """Share of time that lies in ops without one, or between those and others of their part."""
    found = 0.0
    for part in parts:
        own = [op for op in ops if op.part == part.told.index]
        if whole_us and any(op.time_us is None for op in own):
            known_us = sum(op.time_us or 0.0 for op in own)
            found += max(0.0, part.total_us - known_us) / whole_us
    return found


def _of_part(
    part: _Part, manifest: Mapping[str, Any], backends: Sequence[BackendProfile]
) -> str | None:
    """What ops were planned for whose names say nothing: the part's backend.

    Not known where the plan has another backend run what that one refuses, in the same file.
    """
    by_id = {backend.id: backend for backend in backends}
    own = by_id.get(part.backend)
    for name in planned_counts(manifest):
        other = by_id.get(name)
        if own is None or other is None or other is own or other.accelerator:
            continue
        if own.accelerator and other.runtime == own.runtime and len(part.ops) > 1:
            return None
    return part.backend


def _planned(nodes: Sequence[PredictedNode], group: Sequence[int]) -> str | None:
    """The backend that most of the planned time of some nodes was given to."""
    spent: dict[str, tuple[float, int]] = {}
    for position in group:
        node = nodes[position]
        share, count = spent.get(node.backend, (0.0, 0))
        spent[node.backend] = (share + node.share, count + 1)
    return max(spent, key=lambda name: spent[name]) if spent else None


def _backend_of(op: ToldOp, part: _Part, backends: Sequence[BackendProfile]) -> str | None:
    """Find the backend of the target that an op ran on.

    It is the one that served the part, unless the op ran on the other side of it: a delegate's
    file has ops on the CPU, a DLA's engine layers on the GPU. Then it is the target's backend
    of the same runtime on that side, where there is only one.
    """
    if op.accelerator is None:
        return None
    served = next((b for b in backends if b.id == part.served_by), None)
    if served is None:
        return part.served_by if not backends else None
    device = "" if part.ran is None else str(part.ran.detail.get("device") or "")
    elsewhere = bool(
        device
        and op.accelerator
        and op.where != device
        and any(other.where == device and other.accelerator for other in part.ops)
    )
    if served.accelerator == op.accelerator and not elsewhere:
        return served.id
    others = [
        b.id
        for b in backends
        if b is not served and b.runtime == served.runtime and b.accelerator == op.accelerator
    ]
    return others[0] if len(others) == 1 else None


def _agrees(
    predicted: str | None, backend: str | None, op: ToldOp, backends: Sequence[BackendProfile]
) -> bool | None:
    if predicted is None or op.accelerator is None:
        return None
    if backend is not None:
        return backend == predicted
    planned = next((b for b in backends if b.id == predicted), None)
    # on none of the target's backends; on the CPU is where it ran all the same
    return False if planned is None else not planned.accelerator and not op.accelerator


def _rows(
    ops: Sequence[OffloadOp],
    manifest: Mapping[str, Any],
    backends: Sequence[BackendProfile],
    *,
    is_timed: bool,
) -> tuple[OffloadRow, ...]:
    counts, shares = planned_counts(manifest), planned_shares(manifest)
    timed: set[tuple[str | None, str]] = set()
    kinds = {backend.id: backend.accelerator for backend in backends}
    rows: dict[tuple[str | None, str], OffloadRow] = {
        (name, ""): OffloadRow(
            backend=name,
            where=(),
            accelerator=kinds.get(name),
            predicted_nodes=counts.get(name, 0) if counts else None,
            predicted_share=shares.get(name, 0.0) if shares else None,
            ops=0,
            measured_share=0.0 if is_timed else None,
            derived=False,
        )
        for name in counts
    }
    for op in ops:
        key = (op.backend, "" if op.backend is not None else op.where)
        row = rows.get(key) or OffloadRow(
            backend=op.backend,
            where=(),
            accelerator=op.accelerator,
            predicted_nodes=0 if counts else None,
            predicted_share=0.0 if shares else None,
            ops=0,
            measured_share=0.0 if is_timed else None,
            derived=False,
        )
        known = row.measured_share is not None and op.share is not None
        timed |= {key} if known else set()
        rows[key] = replace(
            row,
            where=tuple(dict.fromkeys((*row.where, op.where))),
            accelerator=op.accelerator if row.accelerator is None else row.accelerator,
            ops=row.ops + op.count,
            measured_share=min(1.0, (row.measured_share or 0.0) + (op.share or 0.0))
            if known
            else row.measured_share,
            derived=row.derived or op.derived,
        )
    # what ran there without a time took some all the same
    return tuple(
        replace(row, measured_share=None) if row.ops and key not in timed else row
        for key, row in rows.items()
    )


def _described(part: _Part, ops: Sequence[OffloadOp], whole_us: float) -> OffloadPart:
    own = [op for op in ops if op.part == part.told.index]
    there = sum((op.share or 0.0 for op in own if op.accelerator), 0.0)
    return OffloadPart(
        index=part.told.index,
        backend=part.backend,
        served_by=part.served_by,
        runtime=part.told.runtime,
        time_us=part.total_us or None,
        share=min(1.0, part.total_us / whole_us) if whole_us else None,
        accelerator_share=min(1.0, there) if whole_us else None,
        how=part.told.how,
        why=part.told.why,
    )


def _moved(manifest: Mapping[str, Any]) -> dict[str, tuple[str, str]]:
    """What the build placed otherwise than the plan: by node, for whom it was built and why."""
    built = manifest.get("as_built")
    placement = built.get("placement") if isinstance(built, Mapping) else None
    moved = placement.get("moved") if isinstance(placement, Mapping) else None
    found = {}
    for record in moved if isinstance(moved, list) else []:
        if isinstance(record, Mapping) and isinstance(record.get("node"), str):
            found[record["node"]] = (str(record.get("built")), str(record.get("reason")))
    return found


def op_label(op: OffloadOp) -> str:
    """Name an op by the node it stands for, else as its runtime does."""
    if op.nodes:
        more = len(op.nodes) - 1
        return op.nodes[0] + (f" (fused with {more} more)" if more else "")
    return op.name or (f"all of part {op.part}" if not op.op else f"{op.count} {op.op}")


def place_text(op: OffloadOp, runtime: str = "") -> str:
    """Say where an op ran: ``on the CPU in XNNPACK``, ``on NPU``."""
    if op.accelerator is None:
        return f"where {op.where or runtime or 'its runtime'} does not tell"
    if op.accelerator:
        return f"on {op.where}"
    inside = runtime if op.where.upper() in ("", "CPU") else op.where
    return f"on the CPU in {inside}" if inside else "on the CPU"


def _sentence(op: OffloadOp, moved: Mapping[str, tuple[str, str]], told: Told) -> str:
    """Name one disagreement."""
    label = op_label(op)
    text = f"{label} was planned for {op.predicted} and ran "
    text += place_text(op, told.parts[op.part].runtime)
    if op.share is not None:
        text += f": {op.share:.1%} of the time" + (" (derived)" if op.derived else "")
    built = next((moved[name] for name in op.nodes if name in moved), None)
    if built is not None:
        text += f"; it was built for {built[0]}: {built[1]}"
    return text[:1000]
