"""Render reports as one HTML file that needs nothing else and loads nothing.

Every text passes `edgesdk.report.page.escaped`: names come from models, files and devices, and
none of them is trusted. Numbers stand in tables; plots repeat them for the eye.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from edgesdk.bench.values import (
    PERCENTILES,
    VERDICTS,
    Baseline,
    BenchmarkReport,
    Verdict,
)
from edgesdk.report.bars import memory_plot, ops_plot, shares_plot
from edgesdk.report.contest import contest_section
from edgesdk.report.drawing import Drawn, plots_available
from edgesdk.report.measured import (
    comparison_section,
    energy_tile,
    procedure_section,
    runs_text,
    trust_note,
)
from edgesdk.report.offload import offload_section
from edgesdk.report.overview import VERDICT_TITLES, overview_section
from edgesdk.report.page import escaped, figure, page, section, sentence, table
from edgesdk.report.plots import comparison_plot, latency_plot, timeline_plot
from edgesdk.report.sections import (
    accuracy_section,
    built_section,
    conditions_section,
    deployment_section,
    memory_section,
    placement_section,
    repeat_section,
    subjects_section,
)
from edgesdk.report.summary import (
    bytes_text,
    compare_medians,
    describe_speedup,
    interval_text,
    ms_text,
    pace_text,
    score_text,
)

__all__ = ["render_html"]

_MOOD: dict[Verdict, str] = {
    "accelerated": "good",
    "cpu-as-planned": "good",
    "partly-fell-back": "fair",
    "placement-unknown": "fair",
    "not-measured": "fair",
    "fell-back-to-cpu": "bad",
    "accuracy-suspect": "bad",
}
_Plot = Callable[[BenchmarkReport, str], Drawn | None]


def render_html(reports: Sequence[BenchmarkReport]) -> str:
    """Render one or more reports as one self-contained page, in the order they are given.

    Several are compared first. Without matplotlib the plots are left out and the page says so;
    the same reports always give the same text.
    """
    first = reports[0] if reports else None
    title = f"{first.model.name} on {first.device.name}" if first else "no reports"
    several = len(reports) > 1
    top = ""
    if several:
        title = f"{len(reports)} benchmark reports"
        top = _top(title, reports) + overview_section(reports)
    articles = "\n".join(
        _article(report, index, nested=several) for index, report in enumerate(reports)
    )
    made = f"Made by edgesdk {first.edgesdk}." if first else "Made by edgesdk."
    body = f"{top}{articles}" if first else "<h1>No reports</h1>"
    return page(title, f"<main>\n{body}\n</main>", made=made)


def _top(title: str, reports: Sequence[BenchmarkReport]) -> str:
    models = dict.fromkeys(report.model.name for report in reports)
    devices = dict.fromkeys(report.device.name for report in reports)
    dates = sorted(report.created[:10] for report in reports)
    when = dates[0] if dates[0] == dates[-1] else f"{dates[0]} to {dates[-1]}"
    named = ", ".join(models) if len(models) < 4 else f"{len(models)} models"
    count = f"{len(devices)} device{'s'[: len(devices) != 1]}"
    return (
        f'<header class="top"><h1>{escaped(title)}</h1>\n'
        f'<p class="sub">{escaped(f"{named} on {count}, {when}")}</p></header>\n'
    )


def _article(report: BenchmarkReport, index: int, *, nested: bool) -> str:
    level = "h2" if nested else "h1"
    number = f"{index + 1} · " if nested else ""
    device = report.device
    what = device.device_tree_model or device.cpu_model or device.machine or ""
    on = f"{device.name} ({what})" if what else device.name
    head = (
        f'<header class="top"><{level}>{number}{escaped(report.model.name)}'
        f" · {escaped(report.bundle.precision)}</{level}>\n"
        f'<p class="sub">built for {escaped(report.target.name)}, measured on {escaped(on)},'
        f" {escaped(report.created.replace('T', ' ').replace('Z', ' UTC'))}</p></header>\n"
    )
    sections = (
        _verdict(report),
        trust_note(report),
        _tiles(report),
        _latency(report, index),
        contest_section(report.contest, f"k{index}"),
        _comparison(report, index),
        comparison_section(report, index),
        accuracy_section(report),
        built_section(report),
        placement_section(report),
        _time(report, index),
        offload_section(report),
        _memory(report, index),
        procedure_section(report),
        conditions_section(report),
        subjects_section(report),
        deployment_section(report),
        repeat_section(report),
    )
    body = "".join(sections)
    if nested:  # an outline has no gaps: what stands under the report's heading is a level down
        body = body.replace("<h3", "<h4").replace("</h3>", "</h4>")
        body = body.replace("<h2", "<h3").replace("</h2>", "</h3>")
    name = escaped(f"{report.model.name} on {report.device.name}")
    kind = ' class="nested"' if nested else ""
    return f'<article id="report-{index}"{kind} aria-label="{name}">\n{head}{body}</article>'


def _verdict(report: BenchmarkReport) -> str:
    reasons = "".join(f"<li>{escaped(reason)}</li>" for reason in report.verdict_reasons)
    return (
        f'<div class="verdict {_MOOD[report.verdict]}" role="note" aria-label="Verdict">'
        f"<strong>{VERDICT_TITLES[report.verdict]}</strong>"
        f"<p>{escaped(sentence(VERDICTS[report.verdict]))}</p>"
        f"{f'<ul>{reasons}</ul>' if reasons else ''}</div>\n"
    )


def _tiles(report: BenchmarkReport) -> str:
    latency = report.latency
    tiles: list[tuple[str, str, str]] = []
    for name, _ in PERCENTILES:
        value = getattr(latency, name)
        title = "median (p50)" if name == "p50_ms" else name.removesuffix("_ms")
        if value is None:
            tiles.append((title, "not given", latency.why[name]))
        else:
            interval = latency.intervals[name]
            lower = ms_text(interval.lower_ms).removesuffix(" ms")
            tiles.append((title, ms_text(value), f"{lower} to {ms_text(interval.upper_ms)}"))
    base = report.baseline
    before = None if base is None else base.accuracy.labelled
    other = "" if base is None else base.bundle.precision
    speedup = compare_medians(report)
    if speedup is not None and tiles[0][2]:
        tiles[0] = (*tiles[0][:2], f"{speedup} as {other}" if "times" in speedup else speedup)
    if report.throughput_per_s is not None:
        shown = f"{report.throughput_per_s:,.4g}/s"
        tiles.append(("throughput", shown, pace_text(report.spec)))
    if report.peak_rss_bytes is not None:
        tiles.append(("peak memory", bytes_text(report.peak_rss_bytes), "of the worker"))
    share = "what the runtime loads"
    if base is not None and base.bundle.bytes:
        share = f"{report.bundle.bytes / base.bundle.bytes:.0%} of {other}"
    tiles.append(("size", bytes_text(report.bundle.bytes), share))
    energy = energy_tile(report)
    if energy is not None:
        tiles.append(energy)
    labelled = report.accuracy.labelled
    if labelled is not None:
        said = interval_text(labelled)
        if before is not None:
            said = f"{other}: {score_text(before)}; {labelled.samples} samples"
        tiles.append((f"{labelled.metric}, {labelled.where}", score_text(labelled), said))
    cells = "".join(
        f"<div><dt>{escaped(title)}</dt><dd>{escaped(value)}</dd><dd>{escaped(more)}</dd></div>"
        for title, value, more in tiles
    )
    return f'<dl class="tiles">{cells}</dl>\n'


def _figure(title: str, plot: _Plot, report: BenchmarkReport, name: str, says: str) -> str:
    return figure(title, plot(report, name), says=says)


def _latency(report: BenchmarkReport, index: int) -> str:
    rows = []
    latency = report.latency
    for name, _ in PERCENTILES:
        value, interval = getattr(latency, name), latency.intervals.get(name)
        if interval is None:
            rows.append((name.removesuffix("_ms"), "not given", latency.why[name], ""))
        else:
            span = f"{ms_text(interval.lower_ms)} to {ms_text(interval.upper_ms)}"
            covers = f"{interval.coverage:.2%}"
            rows.append((name.removesuffix("_ms"), ms_text(value), span, covers))
    for title, value in (
        ("mean", latency.mean_ms),
        ("fastest", latency.min_ms),
        ("slowest", latency.max_ms),
        ("first run", report.first_run_ms),
        ("load", report.load_ms),
        ("cold start", report.cold_start_ms),
    ):
        if value is not None:
            rows.append((title, ms_text(value), "", ""))
    count = len(latency.samples_ms)
    caption = runs_text(report)
    median = ms_text(latency.p50_ms)
    plots = ""
    if plots_available():
        says = f"{report.model.name}: distribution of {count} latencies, median {median}"
        plots = _figure("Distribution", latency_plot, report, f"d{index}", says)
        says = f"{count} latencies in order, with clock and temperature where known"
        plots += _figure("Over time", timeline_plot, report, f"t{index}", says)
    elif count > 1:
        plots = '<p class="note">Plots are left out: matplotlib is not installed.</p>'
    head = ("", "time", "95 % interval", "covers")
    definitions = (
        '<p class="note">Percentiles interpolate linearly between samples. Each interval lies'
        " between two order statistics and assumes no distribution; a percentile is given only"
        " where its interval exists. Cold start is from starting the worker to its first"
        " result.</p>"
    )
    return section(
        "Latency",
        _key(report) if plots else "",
        f'<div class="pair">{plots}</div>\n' if plots else "",
        table(caption, head, rows, numbers=frozenset({1, 3})),
        definitions,
        _parts(report),
    )


def _key(report: BenchmarkReport) -> str:
    if report.baseline is None:
        return ""
    return _marks(report.bundle.precision, report.baseline.bundle.precision)


def _marks(ours: str, theirs: str) -> str:
    """Say what the two colours of a plot stand for."""
    marks = "".join(
        f'<span><i style="background:var(--{colour})"></i>{escaped(name)}</span>'
        for name, colour in ((ours, "ours"), (theirs, "theirs"))
    )
    return f'<p class="key">{marks}</p>\n'


def _time(report: BenchmarkReport, index: int) -> str:
    """Draw where the time of an inference goes: backends, parts and ops."""
    if not plots_available():
        return ""
    says = "shares of time by backend and part, planned and measured; tables hold the numbers"
    shares = _figure("By backend and part", shares_plot, report, f"s{index}", says)
    says = "the ops that took longest, their share of time planned and measured"
    ops = _figure("Longest ops", ops_plot, report, f"p{index}", says)
    if not shares and not ops:
        return ""
    key = "" if report.offload is None else _marks("measured", "planned")
    return section("Where the time goes", key, f'<div class="pair">{shares}{ops}</div>\n')


def _memory(report: BenchmarkReport, index: int) -> str:
    drawn = ""
    if plots_available():
        says = "sizes and memory on one axis; the list holds the numbers"
        drawn = _figure("On one axis", memory_plot, report, f"m{index}", says)
    return memory_section(report, _key(report) + drawn if drawn else "")


def _parts(report: BenchmarkReport) -> str:
    if len(report.parts) < 2:
        return ""
    rows = [
        (
            f"part {part.index}",
            f"{part.runtime} {part.runtime_version or ''}",
            ms_text(part.median_ms),
            _share(part.share),
        )
        for part in report.parts
    ]
    head = ("", "runtime", "median", "share of time")
    return table("Time by part", head, rows, numbers=frozenset({2, 3}))


def _share(value: float | None) -> str:
    return "not known" if value is None else f"{value:.1%}"


def _comparison(report: BenchmarkReport, index: int) -> str:
    base = report.baseline
    if base is None:
        return ""
    ours, theirs = report.bundle.precision, base.bundle.precision
    speed = describe_speedup(report)
    figure = ""
    if plots_available():
        says = f"{ours} and {theirs} side by side; the table holds the numbers"
        figure = _figure("Side by side", comparison_plot, report, f"c{index}", says)
    numbers = frozenset({1, 2})
    compared = table("Both measured here, in one session", ("", ours, theirs),
                     _compared(report, base), numbers=numbers)  # fmt: skip
    said = f"<p>{escaped(f'By the median, {ours} {speed}.')}</p>\n" if speed else ""
    return section(
        f"{ours} and {theirs}", said, f'<div class="pair">{figure}<div>{compared}</div></div>\n'
    )


def _compared(report: BenchmarkReport, base: Baseline) -> Iterator[tuple[str, str, str]]:
    for name, _ in PERCENTILES:
        pair = [getattr(side.latency, name) for side in (report, base)]
        shown = ["not given" if value is None else ms_text(value) for value in pair]
        yield name.removesuffix("_ms"), shown[0], shown[1]
    for title, a, b in (
        ("cold start", report.cold_start_ms, base.cold_start_ms),
        ("load", report.load_ms, base.load_ms),
    ):
        if a is not None or b is not None:
            yield title, ms_text(a), ms_text(b)
    yield "size", bytes_text(report.bundle.bytes), bytes_text(base.bundle.bytes)
    if report.peak_rss_bytes is not None or base.peak_rss_bytes is not None:
        yield "peak memory", bytes_text(report.peak_rss_bytes), bytes_text(base.peak_rss_bytes)
    ours, theirs = report.accuracy.labelled, base.accuracy.labelled
    if ours is not None and theirs is not None and ours.metric == theirs.metric:
        yield ours.metric, score_text(ours), score_text(theirs)
    yield "bundle", report.bundle.id[:12], base.bundle.id[:12]
