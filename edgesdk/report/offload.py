"""What ran where, for people: tables by backend and by op, and what did not go as planned."""

from __future__ import annotations

from edgesdk.bench.offload_values import Offload, OffloadOp, OffloadRow
from edgesdk.bench.values import BenchmarkReport
from edgesdk.report.page import escaped, section, sentence, table
from edgesdk.report.summary import Row, clean, ms_text

__all__ = [
    "BACKEND_HEAD",
    "OP_HEAD",
    "backend_rows",
    "offload_rows",
    "offload_section",
    "op_rows",
    "top_ops",
]

BACKEND_HEAD = ("backend", "planned nodes", "planned", "ran as", "ops", "measured")
OP_HEAD = ("op", "nodes", "planned for", "ran on", "planned", "measured", "")
_TOP_OPS = 20
_SHOWN = 10
_NOT_TOLD = "not told"


def offload_rows(report: BenchmarkReport, *, most: int = _SHOWN) -> tuple[Row, ...]:
    """Give the facts in a few lines, ``most`` disagreements; nothing where nobody asked."""
    offload = report.offload
    if offload is None:
        return ()
    if offload.why is not None:
        return (Row(label="ran where", value=clean(offload.why)),)
    rows = []
    if offload.has_accelerator and offload.off_accelerator_share is not None:
        rows.append(Row(label="off accelerator", value=_off_text(offload)))
    untold = [f"part {part.index}: {part.why}" for part in offload.parts if part.why]
    rows += [Row(label="ran where", value=clean(line)) for line in untold[:most]]
    shown = offload.disagreements[:most]
    rows += [Row(label="elsewhere", value=clean(line)) for line in shown]
    more = offload.disagreeing_ops - len(shown)
    if more > 0 and shown:
        rows.append(Row(label="elsewhere", value=f"{more} more ops; report.json has all"))
    return tuple(rows)


def _off_text(offload: Offload) -> str:
    shares = (
        ("on the CPU", offload.cpu_share),
        ("in ops that do not tell", offload.unknown_share),
        ("in launches, copies and hand-over", offload.between_share),
    )
    pieces = [f"{share:.1%} {name}" for name, share in shares if share and share >= 0.0005]
    text = f"{offload.off_accelerator_share:.1%} of the time"
    return f"{text}: {', '.join(pieces)}" if pieces else text


def backend_rows(offload: Offload) -> list[tuple[str, ...]]:
    """Set planned and measured shares beside each other, as `BACKEND_HEAD` names them."""
    rows = [_backend_row(row) for row in offload.rows]
    if offload.between_share is not None and offload.between_share >= 0.0005:
        measured = f"{offload.between_share:.1%}"
        rows.append(("between ops and parts", "", "", "", "", measured))
    return rows


def _backend_row(row: OffloadRow) -> tuple[str, ...]:
    where = ", ".join(name or _NOT_TOLD for name in row.where)
    if row.accelerator is False and row.where and "cpu" not in where.lower():
        where += " (CPU)"
    return (
        row.backend or "none of the target's",
        "" if row.predicted_nodes is None else str(row.predicted_nodes),
        "" if row.predicted_share is None else f"{row.predicted_share:.1%}",
        where or "nothing",
        str(row.ops),
        _share_text(row.measured_share, derived=row.derived),
    )


def _share_text(share: float | None, *, derived: bool) -> str:
    if share is None:
        return "not known"
    return f"{share:.1%}" + (" derived" if derived else "")


def top_ops(offload: Offload, most: int = _TOP_OPS) -> list[OffloadOp]:
    """Give the ops that took longest, those that did not run where they were planned first."""
    by_time = sorted(offload.ops, key=lambda op: op.share or 0.0, reverse=True)
    return sorted(by_time[:most], key=lambda op: op.agrees is not False)


def op_rows(offload: Offload, most: int = _TOP_OPS) -> list[tuple[str, ...]]:
    """Describe the top ops, as `OP_HEAD` names the columns."""
    marks = {True: "", False: "elsewhere than planned", None: ""}
    return [
        (
            op.op if op.count == 1 else f"{op.count} {op.op}",
            ", ".join(op.nodes) or op.name,
            op.predicted or "nobody",
            op.where or _NOT_TOLD,
            "" if op.predicted_share is None else f"{op.predicted_share:.1%}",
            _share_text(op.share, derived=op.derived),
            marks[op.agrees],
        )
        for op in top_ops(offload, most)
    ]


def offload_section(report: BenchmarkReport) -> str:
    """Show what ran where on a page: by backend, by part, the longest ops, disagreements."""
    offload = report.offload
    if offload is None:
        return ""
    if offload.why is not None:
        return section("What ran where", f"<p>{escaped(sentence(offload.why))}</p>\n")
    lines = "".join(f"<li>{escaped(line)}</li>" for line in offload.disagreements)
    more = offload.disagreeing_ops - len(offload.disagreements)
    if more > 0:
        lines += f"<li>{more} more, which report.json names</li>"
    off = ""
    if offload.has_accelerator and offload.off_accelerator_share is not None:
        off = f"<p>{escaped(f'Off the accelerator: {_off_text(offload)}.')}</p>\n"
    parts = [
        (
            f"part {part.index}",
            part.backend
            if part.backend == part.served_by
            else f"{part.served_by} instead of {part.backend}",
            part.runtime,
            ms_text(None if part.time_us is None else part.time_us / 1000),
            _share_text(part.share, derived=False),
            part.why or part.how,
        )
        for part in offload.parts
    ]
    shown = min(len(offload.ops), _TOP_OPS)
    return section(
        "What ran where",
        off,
        f'<p>Elsewhere than planned:</p><ul class="notes">{lines}</ul>\n' if lines else "",
        table(
            "Share of the time of one inference, by backend",
            BACKEND_HEAD,
            backend_rows(offload),
            numbers=frozenset({1, 2, 4, 5}),
            stack=True,
        ),
        table(
            "By part",
            ("", "backend", "runtime", "median", "share of time", "how its ops were timed"),
            parts,
            numbers=frozenset({3, 4}),
            stack=True,
        ),
        table(
            f"The {shown} ops that took longest, of {len(offload.ops)}",
            OP_HEAD,
            op_rows(offload),
            numbers=frozenset({4, 5}),
            stack=True,
        ),
        '<p class="note">Asked of each runtime after the measurement. Planned shares come from'
        " the figures of the target's profile; derived ones were worked out from the time of"
        " the part. What is on none of the ops counts as off the accelerator.</p>",
    )
