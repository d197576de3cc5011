"""The overview of a page of several reports: a table to sort, and plots that compare them."""

from __future__ import annotations

from collections.abc import Sequence

from edgesdk.bench.values import AccuracyResult, BenchmarkReport, Verdict
from edgesdk.report.drawing import plots_available
from edgesdk.report.headline import Headline
from edgesdk.report.page import Cell, escaped, figure, section, sortable_table
from edgesdk.report.scatter import (
    accuracy_scatter,
    fastest_text,
    medians_plot,
    size_scatter,
)
from edgesdk.report.several import Point, by_model
from edgesdk.report.summary import bytes_text, clean, ms_text, score_text

__all__ = ["VERDICT_TITLES", "overview_section", "overview_table"]

VERDICT_TITLES: dict[Verdict, str] = {
    "accelerated": "Accelerated",
    "cpu-as-planned": "On the CPU, as planned",
    "partly-fell-back": "Partly fell back to the CPU",
    "placement-unknown": "Placement unknown",
    "not-measured": "Not measured",
    "fell-back-to-cpu": "Fell back to the CPU",
    "accuracy-suspect": "Accuracy suspect",
}
_FINE: frozenset[Verdict] = frozenset({"accelerated", "cpu-as-planned"})
#: In a table there is little room.
_SHORT: dict[Verdict, str] = {
    "cpu-as-planned": "CPU, as planned",
    "partly-fell-back": "Partly on the CPU",
}
#: Each model gets plots of its own; more would make the page long before its reports begin.
_MOST_MODELS = 12
_COLUMNS = (
    "",
    "device",
    "date",
    "trust",
    "verdict",
    "median",
    "p99",
    "x fastest",
    "size",
    "memory",
)
_SESSIONS = (
    "Each report was measured in a session of its own: clocks and load differ between them, "
    "and so may a few per cent. A claim needs both bundles measured in turns on one device."
)


def overview_table(reports: Sequence[BenchmarkReport], *, brief: bool = False) -> Headline:
    """Set reports side by side in the order they are given, a line each, as plain text.

    With ``brief`` there are fewer columns: dates only where one bundle's name was measured
    twice on a device, verdicts only where something went wrong.
    """
    columns = _columns(reports)
    rows = [[cell.text for cell in row] for row in _rows(reports, by_model(reports))]
    if not brief:
        return Headline(columns=columns, rows=tuple(map(tuple, rows)))
    named = [(r.model.name, r.bundle.precision, r.device.name) for r in reports]
    left_out = {"verdict", "p99", "memory"}
    if len(set(named)) == len(named):
        left_out.add("date")
    if all(report.trust is None for report in reports):
        left_out.add("trust")
    kept = [place for place, name in enumerate(columns) if name not in left_out]
    remarks = [
        VERDICT_TITLES[report.verdict] if report.verdict not in _FINE else ""
        for report in reports
    ]
    return Headline(
        columns=(*(columns[place] for place in kept), "remark"),
        rows=tuple(
            (*(row[place] for place in kept), remark)
            for row, remark in zip(rows, remarks, strict=True)
        ),
    )


def _columns(reports: Sequence[BenchmarkReport]) -> tuple[str, ...]:
    metrics = dict.fromkeys(r.metric for r in map(_labelled, reports) if r is not None)
    if not metrics:
        return _COLUMNS
    return (*_COLUMNS, clean(next(iter(metrics)), limit=20) if len(metrics) == 1 else "metric")


def _labelled(report: BenchmarkReport) -> AccuracyResult | None:
    return report.accuracy.labelled


def _rows(
    reports: Sequence[BenchmarkReport], groups: dict[str, list[Point]]
) -> list[tuple[Cell, ...]]:
    fastest = {
        model: min((p.p50_ms for p in points if p.p50_ms and not p.emulated), default=None)
        for model, points in groups.items()
    }
    scored = [result for result in map(_labelled, reports) if result is not None]
    alike = len({result.metric for result in scored}) == 1
    rows = []
    for number, report in enumerate(reports, start=1):
        median, p99 = report.latency.p50_ms, report.latency.p99_ms
        emulated = report.conditions.static.get("emulated") is not None
        best = None if emulated else fastest[report.model.name]
        ratio = median / best if median and best else None
        row = [
            Cell(
                text=f"{number} {clean(report.model.name, limit=40)} "
                f"{clean(report.bundle.precision, limit=20)}",
                key=number,
                href=f"#report-{number - 1}",
            ),
            Cell(text=clean(report.device.name, limit=40)),
            Cell(text=report.created[:10]),
            Cell(text="-" if report.trust is None else report.trust.grade),
            Cell(text=_SHORT.get(report.verdict, VERDICT_TITLES[report.verdict])),
            Cell(
                text="-"
                if median is None
                else ms_text(median) + (" emulated" if emulated else ""),
                key=median,
            ),
            Cell(text="-" if p99 is None else ms_text(p99), key=p99),
            Cell(text="-" if ratio is None else f"{ratio:.2f}", key=ratio),
            Cell(text=bytes_text(report.bundle.bytes), key=report.bundle.bytes),
            Cell(
                text="-"
                if report.peak_rss_bytes is None
                else bytes_text(report.peak_rss_bytes),
                key=report.peak_rss_bytes,
            ),
        ]
        if scored:
            row.append(_score_cell(report.accuracy.labelled, alike=alike))
        rows.append(tuple(row))
    return rows


def _score_cell(result: AccuracyResult | None, *, alike: bool) -> Cell:
    if result is None:
        return Cell(text="-")
    text = score_text(result)
    if alike:
        return Cell(text=text, key=result.value)
    return Cell(text=f"{text} {clean(result.metric, limit=20)}")  # not to be sorted by value


def overview_section(reports: Sequence[BenchmarkReport]) -> str:
    """Compare the reports of a page, in the order in which they stand on it."""
    groups = by_model(reports)
    columns, rows = _columns(reports), _rows(reports, groups)
    said = [text for points in groups.values() if (text := fastest_text(points))]
    lines = "".join(f"<li>{escaped(text)}.</li>" for text in said[:_MOST_MODELS])
    return section(
        "Side by side",
        f'<ul class="notes">{lines}</ul>\n' if lines else "",
        sortable_table(
            "All reports: model and precision by device; x fastest is the median by the lowest "
            "of that model",
            columns,
            rows,
            numbers=frozenset({5, 6, 7, 8, 9, 10}),
        ),
        f'<p class="note">{escaped(_SESSIONS, limit=1000)}</p>\n',
    ) + "".join(
        _compared(name, points, f"o{index}")
        for index, (name, points) in enumerate(list(groups.items())[:_MOST_MODELS])
        if len(points) > 1
    )


def _compared(model: str, points: Sequence[Point], name: str) -> str:
    """Plot the points of one model."""
    if not plots_available():
        return ""
    count = len(points)
    medians = figure(
        "Median latency",
        medians_plot(points, f"{name}m"),
        says=f"median latencies of {count} measurements of {model}; the table has the numbers",
    )
    accuracy = figure(
        "Accuracy and latency",
        accuracy_scatter(points, f"{name}a"),
        says=f"accuracy over median latency of {model}, with the Pareto front",
    )
    size = figure(
        "Size and latency",
        size_scatter(points, f"{name}s"),
        says=f"size of the parts over median latency of {model}, with the Pareto front",
    )
    if not medians:
        return ""
    return section(
        f"{clean(model)} compared", f'<div class="pair">{medians}{accuracy}{size}</div>\n'
    )
