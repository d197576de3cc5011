"""What a report says of a contest: who competed, how fast each was, which was kept and why."""

from __future__ import annotations

from edgesdk.bench.decide import ratio_text
from edgesdk.bench.values import AccuracyResult, Contest, Contestant, DecidedBy
from edgesdk.report.drawing import plots_available
from edgesdk.report.headline import Headline
from edgesdk.report.page import escaped, figure, section, table
from edgesdk.report.scatter import accuracy_scatter, medians_plot, size_scatter
from edgesdk.report.several import contest_points
from edgesdk.report.summary import bytes_text, clean, ms_text, score_text

__all__ = ["contest_section", "contest_table"]

#: What stands at the winner's line, by what decided.
_WON: dict[DecidedBy, str] = {
    "time": "the fastest: kept",
    "order": "a tie: kept, as it comes first",
    "accuracy": "kept, as it keeps its accuracy",
    "alone": "kept, as the only one left",
    "refused": "the better one; nothing was switched",
}
_ROUNDS_NOTE = (
    "Bundles of the same model, each with another backend before the others or in another "
    "precision, measured in turns: every round starts a new worker for each, and every other "
    "round goes backwards. A ratio is the median over the rounds, its interval between two "
    "of them; one is called faster only where that leaves out 1."
)


def contest_table(contest: Contest) -> Headline:
    """Set the contestants side by side, a line each, in the order in which a tie goes."""
    scored = any(each.labelled is not None for each in contest.contestants)
    extra = ("labelled",) if scored else ()
    if _by_precision(contest):
        extra = ("size", "cosine to float", *extra)
    times = [f"{name}, emulated" if contest.emulated else name for name in ("median", "p95")]
    return Headline(
        columns=("contest", *times, "peak memory", *extra, "bundle", ""),
        rows=tuple(_row(contest, each, scored=scored) for each in contest.contestants),
    )


def _row(contest: Contest, each: Contestant, *, scored: bool) -> tuple[str, ...]:
    median = None if each.latency is None else each.latency.p50_ms
    figures = [
        "-" if median is None else ms_text(median),
        "-" if each.p95_ms is None else ms_text(each.p95_ms),
        "-" if each.peak_rss_bytes is None else bytes_text(each.peak_rss_bytes),
    ]
    if _by_precision(contest):
        figures.append("-" if each.bundle is None else bytes_text(each.bundle.bytes))
        figures.append("-" if each.cosine is None else f"{each.cosine:.5f}")
    if scored:
        figures.append(_score(each.labelled))
    bundle = "-" if each.bundle is None else each.bundle.id[:12]
    name = clean(each.name, limit=80)
    return (name, *figures, bundle, _remark(contest, each))


def _by_precision(contest: Contest) -> bool:
    return any(each.precision for each in contest.contestants)


def _score(result: AccuracyResult | None) -> str:
    return "-" if result is None else f"{score_text(result)} {clean(result.metric, limit=20)}"


def _remark(contest: Contest, each: Contestant) -> str:
    if each.name == contest.winner:
        return _WON[contest.decided_by]
    told = []
    if each.ratio is not None:
        told.append(ratio_text(each.ratio))
    if each.why_out:
        told.append(f"out: {clean(each.why_out)}")
    return "; ".join(told)


def contest_section(contest: Contest | None, name: str) -> str:
    """Show a contest on a page; nothing where there was none.

    Args:
        contest: Who competed.
        name: Unique on the page: ids in its plots begin with it.
    """
    if contest is None:
        return ""
    shown = contest_table(contest)
    figures = frozenset(range(1, 6 if _by_precision(contest) else 4))
    rows = [
        (each.name, ", ".join(each.runtimes), _nodes(each), _rounds(each), _load(each))
        for each in contest.contestants
    ]
    head = ("", "runtime", "nodes", "runs", "load")
    notes = ["The clock was limited meanwhile."] if contest.throttled else []
    if contest.emulated is not None:
        notes.append(
            f"The device was emulated ({contest.emulated}): which is faster there says nothing "
            "of a board."
        )
    notes.append(_ROUNDS_NOTE)
    return section(
        "Contest",
        # begins with an id, which has no capital
        f"<p>{escaped(contest.why, limit=1000)}.</p>\n",
        _plots(contest, name),
        table(
            "Measured in turns on this device, in one session",
            ("", *shown.columns[1:]),
            shown.rows,
            numbers=figures,
            stack=True,
        ),
        table("What ran", head, rows, stack=True),
        *(f'<p class="note">{escaped(note, limit=1000)}</p>\n' for note in notes),
    )


def _plots(contest: Contest, name: str) -> str:
    """Compare those that were measured, where they were several."""
    points = contest_points(contest)
    if not plots_available() or len(points) < 2:
        return ""
    says = f"of {len(points)} contestants; the table holds the numbers"
    drawn = (
        ("Median latency", medians_plot(points, f"{name}m"), f"median latencies {says}"),
        ("Accuracy and latency", accuracy_scatter(points, f"{name}a"), f"accuracy {says}"),
        ("Size and latency", size_scatter(points, f"{name}s"), f"sizes and latencies {says}"),
    )
    figures = "".join(figure(title, plot, says=text) for title, plot, text in drawn)
    return f'<div class="pair">{figures}</div>\n' if figures else ""


def _nodes(each: Contestant) -> str:
    return ", ".join(f"{count} on {name}" for name, count in each.nodes.items())


def _rounds(each: Contestant) -> str:
    if not each.rounds:
        return "none"
    count = len(each.rounds)
    return f"{sum(each.rounds)} in {count} round{'s'[: count != 1]}"


def _load(each: Contestant) -> str:
    return "" if each.load_ms is None else ms_text(each.load_ms)
