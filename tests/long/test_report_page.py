"""The report page in a real browser: nothing complains, nothing is loaded, all of it is seen.

With ``EDGESDK_SCREENSHOTS=DIR`` the pages stay there as pictures, to be looked at.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from edgesdk.bench.values import BenchmarkReport
from edgesdk.report.html import render_html
from tests.long.browser import Browser, Tab, find_chromium
from tests.unit.report.fixtures import make_contest, make_sample_report, make_several
from tests.unit.report.test_report_html import hostile
from tests.unit.report.test_report_measured import make_comparison, make_procedure, make_trust
from tests.unit.report.test_report_offload import make_offload

pytestmark = pytest.mark.long

PHONE, DESKTOP = 360, 1200
PLOTS = {
    "one": ["Distribution", "Over time", "Median latency", "Size and latency", "Side by side",
            "Against b2c4d6e8f0a1", "By backend and part", "Longest ops", "On one axis"],
    "several": ["Median latency", "Accuracy and latency", "Size and latency",
                *["Distribution", "Over time", "On one axis"] * 6],
}  # fmt: skip
#: What a page of that many reports may weigh, and how long a browser may take to paint it.
MOST_BYTES, MOST_S = 5_000_000, 2.0


def full_report() -> BenchmarkReport:
    return replace(
        make_sample_report(),
        offload=make_offload(),
        contest=make_contest(),
        trust=make_trust(),
        procedure=make_procedure(),
        comparisons=(make_comparison(),),
    )


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    program = find_chromium()
    if program is None:
        pytest.skip("there is no Chromium: apt-get install chromium")
    with Browser(program, tmp_path_factory.mktemp("profile")) as opened:
        yield opened


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("pages")
    made = {
        "one": [full_report()],
        "several": make_several(2),
        "hostile": [hostile(), hostile()],
    }
    paths = {}
    for name, reports in made.items():
        paths[name] = folder / f"{name}.html"
        paths[name].write_text(render_html(reports), encoding="utf-8", errors="replace")
    return paths


def keep_picture(tab: Tab, name: str) -> None:
    folder = os.environ.get("EDGESDK_SCREENSHOTS")
    if folder:
        tab.shot(Path(folder) / f"{name}.png")


@pytest.mark.parametrize("width", [PHONE, DESKTOP])
@pytest.mark.parametrize("name", ["one", "several", "hostile"])
def test_page_is_quiet_loads_nothing_and_needs_no_sideways_scroll(
    browser: Browser, pages: dict[str, Path], name: str, width: int
) -> None:
    tab = browser.open(pages[name].as_uri(), width=width)
    keep_picture(tab, f"{name}-{width}")
    assert tab.complaints == []
    assert tab.requests == [pages[name].as_uri()]
    seen, room = tab.run("[document.documentElement.scrollWidth, innerWidth]")
    assert (seen, room) == (width, width)


@pytest.mark.parametrize("width", [PHONE, DESKTOP])
@pytest.mark.parametrize("name", PLOTS)
def test_every_plot_is_there_and_seen(
    browser: Browser, pages: dict[str, Path], name: str, width: int
) -> None:
    tab = browser.open(pages[name].as_uri(), width=width)
    drawn = tab.run(
        "Array.from(document.querySelectorAll('figure'), figure => {"
        "const box = figure.querySelector('svg').getBoundingClientRect();"
        "return [figure.querySelector('h3, h4').textContent, box.width, box.height,"
        "figure.querySelectorAll('svg path').length,"
        "figure.querySelectorAll('svg text').length,"
        "figure.querySelector('[role=img]').getAttribute('aria-label').length]})"
    )
    assert [each[0] for each in drawn] == PLOTS[name]
    for _, wide, high, paths, texts, described in drawn:
        assert 240 < wide <= width
        assert high > 60
        assert paths > 3
        assert texts > 2
        assert described > 20


def test_text_of_plots_can_be_read_on_a_telephone(
    browser: Browser, pages: dict[str, Path]
) -> None:
    tab = browser.open(pages["several"].as_uri(), width=PHONE)
    sizes = tab.run(
        "Array.from(document.querySelectorAll('svg text'), text => {"
        "const placed = text.getScreenCTM();"
        "return parseFloat(getComputedStyle(text).fontSize) * Math.hypot(placed.a, placed.b)})"
    )
    assert min(sizes) > 9


COLOURS = (
    "[...document.querySelectorAll('h1,h2,h3,p,td,th,dd,dt,li,a,figcaption,caption,svg text')]"
    ".map(element => {const style = getComputedStyle(element);"
    "const svg = element.closest('svg'); let ground = element; let colour;"
    "while (ground && /, 0\\)$|transparent/.test(getComputedStyle(ground).backgroundColor))"
    "ground = ground.parentElement;"
    "return [svg ? style.fill : style.color,"
    "ground ? getComputedStyle(ground).backgroundColor : 'rgb(0, 0, 0)', element.tagName]})"
)


def luminance(colour: str) -> float:
    red, green, blue = (int(part) / 255 for part in re.findall(r"\d+", colour)[:3])
    parts = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4
             for p in (red, green, blue)]  # fmt: skip
    return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2]


@pytest.mark.parametrize("name", PLOTS)
@pytest.mark.parametrize("dark", [False, True])
def test_text_stands_out_in_both_schemes(
    browser: Browser, pages: dict[str, Path], name: str, dark: bool
) -> None:
    tab = browser.open(pages[name].as_uri(), width=DESKTOP, dark=dark)
    keep_picture(tab, f"{name}-{'dark' if dark else 'light'}")
    grounds = set()
    for colour, ground, tag in {tuple(each) for each in tab.run(COLOURS)}:
        low, high = sorted((luminance(colour), luminance(ground)))
        assert (high + 0.05) / (low + 0.05) >= 4.5, (tag, colour, ground)
        grounds.add(luminance(ground) > 0.4)
    assert grounds == {not dark}


def test_table_is_sorted_from_the_keyboard(browser: Browser, pages: dict[str, Path]) -> None:
    tab = browser.open(pages["several"].as_uri(), width=DESKTOP)
    rows = "[...document.querySelectorAll('.sortable tbody th')].map(th => th.textContent[0])"
    assert tab.run(rows) == list("123456")
    tab.run("document.querySelector('.sortable thead th:nth-child(6) button').focus()")
    tab.press("Enter")
    assert tab.run(rows) == sorted_by_median()
    tab.press("Enter")
    assert tab.run(rows) == sorted_by_median()[::-1]
    assert tab.run("document.querySelector('[aria-sort]').getAttribute('aria-sort')") == (
        "descending"
    )
    assert tab.complaints == []


def sorted_by_median() -> list[str]:
    medians = [report.latency.p50_ms or 0.0 for report in make_several(2)]
    return [str(i + 1) for i in sorted(range(6), key=medians.__getitem__)]


def test_the_first_links_lead_to_the_reports(browser: Browser, pages: dict[str, Path]) -> None:
    tab = browser.open(pages["several"].as_uri(), width=DESKTOP)
    tab.press("Tab")
    assert tab.run("document.activeElement.closest('.sortable') !== null")
    tab.run("document.querySelector('a[href=\"#report-4\"]').click()")
    top = tab.run(
        "new Promise(done => setTimeout(() => done("
        "document.getElementById('report-4').getBoundingClientRect().top), 300))"
    )
    assert -5 <= top <= 60


def test_landmarks_and_heads_are_what_a_screen_reader_needs(
    browser: Browser, pages: dict[str, Path]
) -> None:
    tab = browser.open(pages["several"].as_uri(), width=PHONE)
    tree = tab.ask("Accessibility.getFullAXTree")["nodes"]
    roles = [node.get("role", {}).get("value") for node in tree if not node.get("ignored")]
    assert roles.count("main") == 1
    assert roles.count("article") == 6
    assert roles.count("image") + roles.count("img") == len(PLOTS["several"])
    assert roles.count("table") > 6
    assert roles.count("columnheader") >= 10
    assert roles.count("rowheader") > 6


def test_printed_page_is_ink_on_paper(
    browser: Browser, pages: dict[str, Path], tmp_path: Path
) -> None:
    tab = browser.open(pages["several"].as_uri(), width=1000, dark=True)
    tab.ask("Emulation.setEmulatedMedia", media="print", features=[
        {"name": "prefers-color-scheme", "value": "dark"}
    ])  # fmt: skip
    keep_picture(tab, "several-print")
    for colour, _, tag in {tuple(each) for each in tab.run(COLOURS)}:
        assert 1.05 / (luminance(colour) + 0.05) >= 4.5, (tag, colour)
    tab.ask("Emulation.setEmulatedMedia", media="", features=[])
    tab.pdf(tmp_path / "page.pdf")
    data = (tmp_path / "page.pdf").read_bytes()
    assert data.startswith(b"%PDF")
    assert len(re.findall(rb"/Type\s*/Page\b", data)) >= 7  # each report begins on its own


def test_twenty_devices_of_ten_thousand_runs_are_light_and_fast(
    browser: Browser, tmp_path: Path
) -> None:
    """Prints size and time: the best of three, and what the page's process itself took of it.

    Where others use this computer meanwhile the latter counts.
    """
    reports = [replace(report, offload=make_offload()) for report in
               make_several(20, runs=10_000)[2::3]]  # fmt: skip
    assert len({report.device.name for report in reports}) == 20
    assert {len(report.latency.samples_ms) for report in reports} == {10_000}
    path = tmp_path / "many.html"
    path.write_text(render_html(reports), encoding="utf-8")
    times = []
    for _ in range(3):
        tab = browser.open(path.as_uri(), width=DESKTOP)
        metrics = tab.ask("Performance.getMetrics")["metrics"]
        cpu_s = {each["name"]: each["value"] for each in metrics}["ProcessTime"]
        times.append((tab.opened_s, cpu_s))
    keep_picture(tab, "twenty")
    size = path.stat().st_size
    opened_s, cpu_s = min(times)
    print(
        f"\n20 devices x 10,000 runs: {size / 1e6:.2f} MB, painted after {opened_s:.2f} s "
        f"({cpu_s:.2f} s of the processor)"
    )
    assert size < MOST_BYTES
    assert min(opened_s, cpu_s) < MOST_S
    assert tab.complaints == []
