"""A recorded run as ``edgesdk history`` shows it: a row of its table, or a record."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edgesdk.bench.history_values import HistoryRun

__all__ = ["COLUMNS", "run_record", "run_row"]

COLUMNS = (
    "run", "when", "model", "bundle", "precision", "device", "p50", "95 % interval", "trust",
    "change", "labels",
)  # fmt: skip
_FEWEST_DIGITS = 12


def run_record(run: HistoryRun) -> dict[str, object]:
    """Give what a JSON document says of a run."""
    return {
        "id": run.id,
        "created": run.created,
        "model": run.model,
        "target": run.target,
        "device": run.device,
        "bundle": run.bundle,
        "precision": run.precision,
        "verdict": run.verdict,
        "trust": run.trust,
        "samples": run.samples,
        "p50_ms": run.p50_ms,
        "lower_ms": run.lower_ms,
        "upper_ms": run.upper_ms,
        "peak_rss_bytes": run.peak_rss_bytes,
        "branch": run.provenance.branch,
        "commit": run.provenance.commit,
        "labels": run.labels,
        "before": None if run.before is None else run.before.id,
        "change": run.change,
        "changed": run.changed,
    }


def run_row(run: HistoryRun) -> tuple[object, ...]:
    """Give what the table says of a run, in the order of :data:`COLUMNS`."""
    from edgesdk.report.summary import clean, ms_text

    interval = ""
    if run.lower_ms is not None and run.upper_ms is not None:
        interval = f"{ms_text(run.lower_ms).removesuffix(' ms')} to {ms_text(run.upper_ms)}"
    change = ""
    if run.change is not None:
        change = f"{run.change:+.1%}" if run.changed else "not clear"
    return (
        run.id[:_FEWEST_DIGITS],
        run.created.replace("T", " ").removesuffix("Z"),
        clean(run.model, limit=40),
        run.bundle[:_FEWEST_DIGITS],
        clean(run.precision, limit=20),
        clean(run.device, limit=60),
        "-" if run.p50_ms is None else ms_text(run.p50_ms),
        interval,
        run.trust or "-",
        change,
        ", ".join(filter(None, (*run.labels, _source_text(run)))),
    )


def _source_text(run: HistoryRun) -> str:
    """Say where the work stood: ``branch@commit``."""
    from edgesdk.report.summary import clean

    source = run.provenance
    commit = f"@{source.commit[:7]}" if source.commit else ""
    branch = "" if source.branch in run.labels else source.branch or ""
    return clean(f"{branch}{commit}", limit=60)
