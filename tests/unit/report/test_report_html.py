"""The page stands alone, trusts no text and says what a reader needs."""

from __future__ import annotations

import importlib
import re
import sys
import warnings
from dataclasses import replace
from html.parser import HTMLParser
from typing import Any

import pytest

from edgesdk.bench.statistics import make_latency
from edgesdk.bench.values import VERDICTS, BenchmarkReport, BenchSpec
from edgesdk.report.files import encode_report
from edgesdk.report.html import render_html
from edgesdk.report.plots import comparison_plot, latency_plot, timeline_plot
from edgesdk.report.read import parse_report
from tests.unit.report.fixtures import (
    FP32,
    INT8,
    make_contest,
    make_contestant,
    make_sample_report,
    vary,
)

VOID = {"meta", "br", "img", "path", "use", "rect", "link"}


class Outline(HTMLParser):
    """Collects tags, attributes and text, and checks that tags are closed in order."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(page)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


@pytest.fixture(scope="module")
def page() -> str:
    return render_html([make_sample_report()])


def test_the_page_needs_nothing_from_anywhere(page: str) -> None:
    outline = Outline(page)
    for tag, attributes in outline.tags:
        assert tag not in {"script", "link", "iframe", "object", "img", "base", "form"}
        for name, value in attributes.items():
            assert not name.startswith("on")
            if name in {"href", "src", "xlink:href"}:
                assert (value or "").startswith("#")
    assert "@import" not in page
    assert set(re.findall(r"url\(([^)]{2})", page)) <= {"#d", "#t", "#c", "#m"}
    assert "default-src 'none'" in page


def test_the_page_says_what_was_measured(page: str) -> None:
    text = Outline(page).text
    for words in (
        "On the CPU, as planned",
        "digits-cnn · int8",
        "Raspberry Pi 5 Model B Rev 1.0",
        "By the median, int8 is 2.46 times as fast as fp32.",
        "The clock governor is ondemand, so the clock follows the load.",
        "part 0: int8 onnx, 26 nodes quantized, 1 left in float",
        "98.33%",
        "edgesdk bench bench-3 --runs 400",
        "2400, 4 times",
    ):
        assert words in text


def test_ids_are_unique_and_references_resolve(page: str) -> None:
    tags = Outline(page).tags
    ids = [attributes["id"] for _, attributes in tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    pointed = {(attributes["href"] or "")[1:] for _, attributes in tags if "href" in attributes}
    pointed |= set(re.findall(r"url\(#([^)]*)\)", page))
    assert pointed <= set(ids)


def test_plots_have_a_text_for_those_who_do_not_see_them(page: str) -> None:
    tags = Outline(page).tags
    labels = [a["aria-label"] for tag, a in tags if a.get("role") == "img"]
    assert len(labels) == 4
    assert all(labels)
    svgs = [attributes for tag, attributes in tags if tag == "svg"]
    assert [svg["aria-hidden"] for svg in svgs] == ["true"] * 4
    headings = [tag for tag, _ in tags if re.fullmatch("h[1-6]", tag)]
    assert headings[0] == "h1"
    assert headings.count("h1") == 1


def test_colours_of_plots_follow_the_page(page: str) -> None:
    drawn = "".join(re.findall(r"<svg.*?</svg>", page, flags=re.DOTALL))
    assert "var(--ours)" in drawn
    assert "ed9e" not in drawn
    assert "prefers-color-scheme:dark" in page
    assert set(re.findall(r"#[0-9a-f]{6}\b", drawn)) <= set()


def test_the_same_report_gives_the_same_bytes(page: str) -> None:
    assert render_html([make_sample_report()]) == page
    assert len(page.encode()) < 150_000


HOSTILE = "</td><script>alert(1)</script>\"'&$x_{\x1b[2J\u202e\x00"


def hostile() -> BenchmarkReport:
    report = make_sample_report()
    conditions = report.conditions
    sample = replace(conditions.samples[0], temp_c={HOSTILE: 50.0})
    assert report.baseline is not None
    labelled = report.accuracy.labelled
    assert labelled is not None
    return replace(
        report,
        verdict_reasons=(HOSTILE,),
        model=replace(report.model, name=HOSTILE),
        device=replace(report.device, name=HOSTILE, device_tree_model=HOSTILE),
        bundle=replace(report.bundle, precision=HOSTILE),
        conditions=replace(
            conditions,
            static={HOSTILE: HOSTILE, "list": (HOSTILE, HOSTILE)},
            samples=(sample, *conditions.samples[1:]),
            notes=(HOSTILE,),
        ),
        accuracy=replace(report.accuracy, labelled=replace(labelled, metric=HOSTILE)),
        baseline=replace(
            report.baseline, bundle=replace(report.baseline.bundle, precision=HOSTILE)
        ),
        contest=make_contest(
            why=HOSTILE,
            winner=HOSTILE,
            contestants=(
                make_contestant(HOSTILE, HOSTILE, 1.0, bundle=INT8, nodes={HOSTILE: 1}),
                make_contestant("b", "b", 1.0, bundle=FP32, why_out=HOSTILE),
            ),
        ),
        repeat=(HOSTILE,),
    )


def test_hostile_text_stays_text() -> None:
    page = render_html([hostile()])
    outline = Outline(page)
    assert "script" not in {tag for tag, _ in outline.tags}
    assert "<script" not in page
    assert "\x1b" not in page
    assert "\u202e" not in page
    assert "\x00" not in page


def test_several_reports_stand_side_by_side() -> None:
    silent = vary(baseline=None, latency=make_latency([]))
    outline = Outline(render_html([silent, silent]))
    assert "2 benchmark reports" in outline.text
    assert [a["id"] for tag, a in outline.tags if tag == "article"] == ["report-0", "report-1"]
    assert sum(tag == "h1" for tag, _ in outline.tags) == 1


@pytest.mark.parametrize("verdict", VERDICTS)
def test_every_verdict_is_shown_with_its_meaning(verdict: str) -> None:
    changes: dict[str, Any] = {
        "verdict": verdict,
        "baseline": None,
        "latency": make_latency([]),
    }
    report = vary(**changes)
    meaning = VERDICTS[report.verdict]
    assert f"{meaning[0].upper()}{meaning[1:]}." in Outline(render_html([report])).text


def test_a_percentile_without_enough_samples_says_why() -> None:
    report = vary(latency=make_latency([1.0 + i / 1000 for i in range(200)]), baseline=None)
    text = Outline(render_html([report])).text
    assert "needs 368 samples, has 200" in text


@pytest.mark.parametrize(
    ("outcome", "text"),
    [("on-probation", "should it fail"), ("returned", "taken back by the device itself")],
)
def test_page_says_how_the_release_stands(outcome: str, text: str) -> None:
    receipt = make_sample_report().deployment
    assert receipt is not None
    changes: dict[str, Any] = {
        "deployment": replace(receipt, outcome=outcome),
        "baseline": None,
        "latency": make_latency([]),
    }
    assert text in Outline(render_html([vary(**changes)])).text


def test_nothing_measured_is_a_page_without_plots() -> None:
    silent = replace(make_sample_report().conditions, samples=())
    page = render_html(
        [
            vary(
                latency=make_latency([]),
                baseline=None,
                deployment=None,
                peak_rss_bytes=None,
                conditions=silent,
            )
        ]
    )
    assert "<svg" not in page
    assert "needs 6 samples, has 0" in Outline(page).text
    assert render_html([]).startswith("<!DOCTYPE html>")


@pytest.mark.parametrize("samples", [[2.0] * 500, [0.0, 0.0, 1e-6], [1e-6, 1e18] * 10])
def test_odd_samples_can_be_drawn(samples: list[float]) -> None:
    page = render_html([vary(latency=make_latency(samples), baseline=None)])
    assert "nan" not in Outline(page).text.split()


def test_figures_at_their_limits_can_be_drawn() -> None:
    report = make_sample_report()
    samples = tuple(
        replace(
            sample,
            t_s=1e18,
            cpu_mhz=(1e18, 0.0),
            temp_c={"a": -1e6, "b": 1e6},
            load1=1e18,
            mem_available_bytes=(1 << 63) - 1,
        )
        for sample in report.conditions.samples[:3]
    )
    report = replace(
        report,
        latency=make_latency([5e-324, 1e18] * 10),
        conditions=replace(report.conditions, samples=samples),
        bundle=replace(report.bundle, bytes=0),
    )
    report = parse_report(encode_report(report), name="r.json")
    assert render_html([report]).count("<svg") == 4


def test_many_samples_make_a_small_plot() -> None:
    report = vary(latency=make_latency([1.0 + (i * 7919 % 1000) / 1e4 for i in range(50_000)]))
    for plot in (latency_plot, timeline_plot, comparison_plot):
        drawn = plot(report, "x")
        assert drawn is not None
        assert len(drawn.svg) < 60_000


def test_without_matplotlib_the_page_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    page = render_html([make_sample_report()])
    assert "<svg" not in page
    assert "Plots are left out: matplotlib is not installed." in page
    monkeypatch.undo()
    importlib.import_module("matplotlib.figure")


def test_contrast_of_text_is_readable_in_both_schemes(page: str) -> None:
    def luminance(colour: str) -> float:
        parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        r, g, b = (p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts)
        return 0.2126 * r + 0.7152 * g + 0.0722 * b

    def contrast(one: str, two: str) -> float:
        low, high = sorted((luminance(one), luminance(two)))
        return (high + 0.05) / (low + 0.05)

    schemes = re.findall(r":root\{([^}]*)\}", page)[:2]
    for scheme in schemes:
        long = re.sub(
            r"#([0-9a-f])([0-9a-f])([0-9a-f])\b(?=[;}\s]|$)", r"#\1\1\2\2\3\3", scheme
        )
        colours = dict(re.findall(r"--([\w-]+):\s*(#[0-9a-f]{6})", long))
        for ground in ("ground", "panel"):
            for text in ("ink", "muted"):
                assert contrast(colours[text], colours[ground]) >= 4.5
        for mood in ("good", "bad", "fair"):
            assert contrast(colours[mood], colours[f"{mood}-soft"]) >= 4.5
            assert contrast(colours["ink"], colours[f"{mood}-soft"]) >= 4.5


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        (BenchSpec(), "one by one"),
        (BenchSpec(scenario="multi-stream", streams=4), "multi-stream"),
        (BenchSpec(batch=8), "single-stream"),
    ],
)
def test_the_tile_of_throughput_says_how_it_came_about(spec: BenchSpec, said: str) -> None:
    page = render_html([vary(spec=spec, throughput_per_s=100.0)])
    assert f"<dt>throughput</dt><dd>100/s</dd><dd>{said}</dd>" in page


def test_equal_runs_but_for_one_are_drawn_without_a_warning() -> None:
    report = vary(latency=make_latency([1.0] * 999 + [5.0]), baseline=None)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        drawn = latency_plot(report, "x")
    assert drawn is not None
    assert "beyond the right edge" not in drawn.caption
