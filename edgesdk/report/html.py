"""Render reports as one HTML file that needs nothing else: no network, no script.

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
from edgesdk.report.contest import contest_section
from edgesdk.report.offload import offload_section
from edgesdk.report.page import escaped, page, section, sentence, table
from edgesdk.report.plots import (
    comparison_plot,
    latency_plot,
    plots_available,
    timeline_plot,
)
from edgesdk.report.sections import (
    accuracy_section,
    built_section,
    conditions_section,
    deployment_section,
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
_TITLES: dict[Verdict, str] = {
    "accelerated": "Accelerated",
    "cpu-as-planned": "On the CPU, as planned",
    "partly-fell-back": "Partly fell back to the CPU",
    "placement-unknown": "Placement unknown",
    "not-measured": "Not measured",
    "fell-back-to-cpu": "Fell back to the CPU",
    "accuracy-suspect": "Accuracy suspect",
}
_Plot = Callable[[BenchmarkReport, str], tuple[str, str] | None]


def render_html(reports: Sequence[BenchmarkReport]) -> str:
    """Render one or more reports as one self-contained page.

    Without matplotlib the plots are left out and the page says so; the same reports always give
    the same text.
    """
    first = reports[0] if reports else None
    title = f"{first.model.name} on {first.device.name}" if first else "no reports"
    if len(reports) > 1:
        title = f"{len(reports)} benchmark reports"
    overview = _overview(reports) if len(reports) > 1 else ""
    articles = "\n".join(
        _article(report, index, nested=bool(overview)) for index, report in enumerate(reports)
    )
    made = f"Made by edgesdk {first.edgesdk}." if first else "Made by edgesdk."
    return page(title, f"{overview}<main>\n{articles}\n</main>", made=made)


def _overview(reports: Sequence[BenchmarkReport]) -> str:
    rows = [
        (
            f"{report.model.name}, {report.bundle.precision}",
            report.device.name,
            _TITLES[report.verdict],
            ms_text(report.latency.p50_ms),
            ms_text(report.latency.p99_ms) if report.latency.p99_ms else "not given",
            bytes_text(report.bundle.bytes),
        )
        for report in reports
    ]
    head = ("model", "device", "verdict", "p50", "p99", "size")
    links = " · ".join(
        f'<a href="#report-{i}">{escaped(f"{report.model.name} on {report.device.name}")}</a>'
        for i, report in enumerate(reports)
    )
    numbers = frozenset({3, 4, 5})
    return (
        f"<header><h1>{len(reports)} benchmark reports</h1>\n"
        f"{table('Side by side', head, rows, numbers=numbers, stack=True)}</header>\n"
        f'<nav aria-label="Reports"><p>{links}</p></nav>\n'
    )


def _article(report: BenchmarkReport, index: int, *, nested: bool) -> str:
    level = "h2" if nested else "h1"
    device = report.device
    what = device.device_tree_model or device.cpu_model or device.machine or ""
    on = f"{device.name} ({what})" if what else device.name
    head = (
        f'<header style="padding-left:0;padding-right:0"><{level}>{escaped(report.model.name)}'
        f" · {escaped(report.bundle.precision)}</{level}>\n"
        f'<p class="sub">built for {escaped(report.target.name)}, measured on {escaped(on)},'
        f" {escaped(report.created.replace('T', ' ').replace('Z', ' UTC'))}</p></header>\n"
    )
    sections = (
        _verdict(report),
        _tiles(report),
        _latency(report, index),
        contest_section(report.contest),
        _comparison(report, index),
        accuracy_section(report),
        built_section(report),
        placement_section(report),
        offload_section(report),
        conditions_section(report),
        subjects_section(report),
        deployment_section(report),
        repeat_section(report),
    )
    return f'<article id="report-{index}">\n{head}{"".join(sections)}</article>'


def _verdict(report: BenchmarkReport) -> str:
    reasons = "".join(f"<li>{escaped(reason)}</li>" for reason in report.verdict_reasons)
    return (
        f'<div class="verdict {_MOOD[report.verdict]}" role="note" aria-label="Verdict">'
        f"<strong>{_TITLES[report.verdict]}</strong>"
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
        tiles.append(("throughput", f"{report.throughput_per_s:,.4g}/s", "one stream"))
    if report.peak_rss_bytes is not None:
        tiles.append(("peak memory", bytes_text(report.peak_rss_bytes), "of the worker"))
    share = "what the runtime loads"
    if base is not None and base.bundle.bytes:
        share = f"{report.bundle.bytes / base.bundle.bytes:.0%} of {other}"
    tiles.append(("size", bytes_text(report.bundle.bytes), share))
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
    drawn = plot(report, name)
    if drawn is None:
        return ""
    svg, caption = drawn
    note = f"<figcaption>{escaped(caption)}</figcaption>" if caption else ""
    return (
        f"<figure><h3>{escaped(title)}</h3>"
        f'<div role="img" aria-label="{escaped(says)}">{svg}</div>{note}</figure>\n'
    )


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
    caption = f"{count} runs, one after the other, after {report.spec.warmup_runs} to warm up"
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
    names = ((report.bundle.precision, "ours"), (report.baseline.bundle.precision, "theirs"))
    marks = "".join(
        f'<span><i style="background:var(--{colour})"></i>{escaped(name)}</span>'
        for name, colour in names
    )
    return f'<p class="key">{marks}</p>\n'


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
