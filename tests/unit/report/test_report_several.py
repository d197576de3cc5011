"""Many reports beside each other: the front, the page, and files that are no reports."""

from __future__ import annotations

import base64
import hashlib
import re
from dataclasses import replace
from pathlib import Path

import pytest

from edgesdk.bench.statistics import make_latency
from edgesdk.errors import ReportError
from edgesdk.report.files import encode_report
from edgesdk.report.html import render_html
from edgesdk.report.markdown import render_markdown
from edgesdk.report.overview import overview_table
from edgesdk.report.read import read_reports
from edgesdk.report.scatter import accuracy_scatter, medians_plot, size_scatter
from edgesdk.report.several import Point, by_model, front, reading_order, scored_points
from tests.unit.report.fixtures import make_sample_report, make_several, vary
from tests.unit.report.test_report_html import HOSTILE, Outline, hostile


def make_point(mark: str, p50_ms: float | None = 1.0, *, emulated: bool = False) -> Point:
    return Point(
        mark=mark,
        model="m",
        precision="int8",
        device="d",
        target="t",
        p50_ms=p50_ms,
        interval=None,
        p90_ms=None,
        size_bytes=1,
        labelled=None,
        emulated=emulated,
    )


def marks_on_front(values: list[tuple[float, float]]) -> list[str]:
    scored = [(make_point(str(i)), time, value) for i, (time, value) in enumerate(values)]
    return [each[0].mark for each in front(scored, better=lambda a, b: a > b)]


def test_front_keeps_what_nobody_beats() -> None:
    assert marks_on_front([(1, 90), (2, 95), (3, 94), (4, 99), (4, 98)]) == ["0", "1", "3"]


def test_front_of_equal_values_is_the_fastest_and_ties_stay() -> None:
    assert marks_on_front([(2, 90), (1, 90), (3, 90)]) == ["1"]
    assert marks_on_front([(1, 90), (1, 90)]) == ["0", "1"]
    assert marks_on_front([]) == []


def test_an_emulated_time_is_never_on_the_front() -> None:
    scored = [(make_point("1", emulated=True), 1.0, 99.0), (make_point("2"), 2.0, 90.0)]
    assert [each[0].mark for each in front(scored, better=lambda a, b: a > b)] == ["2"]


def test_a_baseline_is_a_point_unless_it_is_a_report_too() -> None:
    one = make_sample_report()
    assert one.baseline is not None
    assert [point.mark for point in by_model([one])["digits-cnn"]] == ["1", "1b"]
    alone = replace(one, bundle=one.baseline.bundle, baseline=None)
    assert [point.mark for point in by_model([one, alone])["digits-cnn"]] == ["1", "2"]


def test_metrics_are_not_mixed_on_an_axis() -> None:
    several = make_several(1)
    labelled = several[2].accuracy.labelled
    assert labelled is not None
    other = replace(
        several[2],
        accuracy=replace(several[2].accuracy, labelled=replace(labelled, metric="auc")),
    )
    metric, scored, without = scored_points(by_model([*several[:2], other])["digits-cnn"])
    assert (metric, [each[0].mark for each in scored], without) == ("top-1", ["1", "2"], 1)
    drawn = accuracy_scatter(by_model([*several[:2], other])["digits-cnn"], "x")
    assert drawn is not None
    assert "1 without a value of top-1 are left out." in drawn.caption


def test_captions_name_the_front_and_what_is_hollow() -> None:
    several = make_several(2)
    slow = several[4]
    emulated = replace(
        slow,
        conditions=replace(
            slow.conditions, static={**slow.conditions.static, "emulated": "qemu"}
        ),
    )
    points = by_model([*several[:4], emulated, several[5]])["digits-cnn"]
    by_accuracy, by_size = accuracy_scatter(points, "a"), size_scatter(points, "s")
    assert by_accuracy is not None
    assert by_size is not None
    for name in ("1 (fp32 on bench-1)", "2 (fp16 on bench-1)", "3 (int8 on bench-1)"):
        assert name in by_accuracy.caption
    assert "6 (int8 on bench-2)" not in by_accuracy.caption
    assert by_size.caption.startswith(
        "On the Pareto front (filled, joined): 3 (int8 on bench-1)."
    )
    assert "Emulated, so their times say nothing of a board (hollow): 5." in by_size.caption


def test_a_single_time_is_no_plot() -> None:
    assert medians_plot([make_point("1"), make_point("2", None)], "m") is None
    assert size_scatter([make_point("1")], "m") is None
    assert accuracy_scatter([make_point("1"), make_point("2")], "m") is None


def test_overview_says_how_far_from_the_fastest() -> None:
    shown = overview_table(make_several(1))
    assert shown.columns[-4:] == ("x fastest", "size", "memory", "top-1")
    assert [row[-4] for row in shown.rows] == ["2.50", "1.54", "1.00"]


def test_brief_overview_has_dates_only_where_they_tell_reports_apart() -> None:
    several = make_several(1)
    assert "date" not in overview_table(several, brief=True).columns
    again = [*several, replace(several[0], created="2026-02-01T00:00:00Z")]
    assert "date" in overview_table(again, brief=True).columns
    fell = replace(several[0], verdict="fell-back-to-cpu")
    assert overview_table([fell, several[1]], brief=True).rows[0][-1] == "Fell back to the CPU"


def test_reading_order_puts_a_model_together() -> None:
    several = make_several(2)
    assert [
        (report.device.name, report.bundle.precision) for report in reading_order(several[::-1])
    ] == [
        (device, precision)
        for device in ("bench-1", "bench-2")
        for precision in ("fp16", "fp32", "int8")
    ]


@pytest.fixture(scope="module")
def page() -> str:
    return render_html(make_several(2))


def test_page_has_a_table_that_leads_to_each_report(page: str) -> None:
    outline = Outline(page)
    links = [a["href"] for tag, a in outline.tags if tag == "a"]
    assert links == [f"#report-{i}" for i in range(6)]
    assert "3 (int8 on bench-1) has the lowest median: 3.91 ms." in outline.text
    keys = [float(a["data-sort"] or "") for _, a in outline.tags if "data-sort" in a]
    assert keys[:3] == [1, pytest.approx(9.7, rel=0.02), pytest.approx(15.5, rel=0.1)]


def test_only_the_script_that_sorts_may_run(page: str) -> None:
    scripts = re.findall(r"<script>(.*?)</script>", page, flags=re.DOTALL)
    assert len(scripts) == page.count("<script") == 1
    digest = base64.b64encode(hashlib.sha256(scripts[0].encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'\"" in page


def test_headings_of_the_page_have_no_gaps(page: str) -> None:
    levels = [int(tag[1]) for tag, _ in Outline(page).tags if re.fullmatch("h[1-6]", tag)]
    assert levels.count(1) == 1
    assert all(b - a <= 1 for a, b in zip([0, *levels], levels, strict=False))


def test_ids_of_many_reports_are_unique(page: str) -> None:
    ids = [a["id"] for _, a in Outline(page).tags if "id" in a]
    assert len(ids) == len(set(ids))


def test_hostile_text_in_several_reports_stays_text() -> None:
    other = replace(hostile(), latency=make_latency([]), baseline=None)
    page = render_html([hostile(), other])
    outline = Outline(page)
    assert [tag for tag, _ in outline.tags].count("script") == 1
    assert "alert(1)" not in re.findall(r"<script>(.*?)</script>", page, flags=re.DOTALL)[0]
    assert "\x1b" not in page
    assert re.search(r"(?<!\\)[<|`](?!\s|---|$)", render_markdown([hostile(), other])) is None


def test_markdown_begins_with_the_comparison() -> None:
    lines = render_markdown(make_several(1)).splitlines()
    assert lines[0] == "## Side by side"
    assert lines[2].startswith("|  | device | date | trust | verdict | median |")
    assert lines[4].startswith("| 1 digits-cnn fp32 | bench-1 | 2026-01-10 | - |")


def test_reports_of_a_folder_are_found_and_none_is_read_twice(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "report.json").write_bytes(encode_report(vary(edgesdk=name)))
    file = tmp_path / "a" / "report.json"
    assert [r.edgesdk for r in read_reports([tmp_path])] == ["a", "b"]
    assert [r.edgesdk for r in read_reports([file, tmp_path / "a", tmp_path])] == ["a", "b"]


def test_every_file_that_is_no_report_is_named(tmp_path: Path) -> None:
    good, empty, newer = (tmp_path / name for name in ("good", "empty", "newer"))
    good.write_bytes(encode_report(make_sample_report()))
    empty.write_bytes(b"\n")
    newer.write_text('{"schema": "edgesdk.report/2"}')
    with pytest.raises(ReportError, match="cannot read 2 of 3 reports") as caught:
        read_reports([good, empty, newer])
    assert f"{empty}: it is empty" in str(caught.value)
    assert "its schema is 'edgesdk.report/2'" in str(caught.value)
    with pytest.raises(ReportError) as caught:
        read_reports([good, newer])
    assert caught.value.hint.startswith("another version of edgesdk wrote it")
    with pytest.raises(ReportError, match="cannot read report"):
        read_reports([tmp_path / "nothing"])


def test_names_in_plots_are_plain() -> None:
    assert HOSTILE not in str(medians_plot([make_point("1"), make_point("2")], "m"))
