"""``edgesdk report`` on a terminal: one report is a screenful, several are a table."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from edgesdk.cli.app import run
from edgesdk.report.files import encode_report
from tests.unit.report.fixtures import make_contest, make_sample_report, make_several
from tests.unit.report.test_report_measured import make_comparison, make_procedure, make_trust
from tests.unit.report.test_report_offload import make_offload


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def show(monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Give what a command shows on a terminal of 80 columns."""

    def shown(*arguments: object, lines: int = 24) -> str:
        terminal = Terminal()
        monkeypatch.setattr("sys.stdout", terminal)
        monkeypatch.setenv("TERM", "dumb")
        monkeypatch.setenv("COLUMNS", "80")
        monkeypatch.setenv("LINES", str(lines))
        assert run(["report", *map(str, arguments)]) == 0
        return terminal.getvalue()

    return shown


def make_long_report(path: Path) -> Path:
    """A report that has everything, and long remarks."""
    report = make_sample_report()
    note = "other work ran while it was measured, and the clock moved with it up and down; "
    path.write_bytes(
        encode_report(
            replace(
                report,
                contest=make_contest(),
                offload=make_offload(
                    disagreements=(
                        "Conv_12 was planned for edgetpu and ran on the CPU in XNNPACK " * 3,
                    )
                    * 20,
                    disagreeing_ops=20,
                ),
                trust=make_trust(),
                procedure=make_procedure(),
                comparisons=(make_comparison(),),
                conditions=replace(report.conditions, notes=(note * 3,) * 8),
            )
        )
    )
    return path


@pytest.mark.parametrize("lines", [24, 40])
def test_a_report_fits_the_screen_and_says_what_is_left_out(
    show: Callable[..., str], tmp_path: Path, lines: int
) -> None:
    text = show(make_long_report(tmp_path / "report.json"), lines=lines)
    shown = text.splitlines()
    assert len(shown) < lines
    assert max(map(len, shown)) <= 80
    assert "2.46 times as fast" in text
    assert "the fastest: kept" in text
    assert "more, for want of room" in text
    assert shown[-1].startswith("more")


def test_a_short_report_leaves_nothing_out(show: Callable[..., str], tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    path.write_bytes(encode_report(make_sample_report()))
    text = show(path)
    assert "left out" not in text
    for label in ("ran ", "spread ", "over time ", "conditions ", "outputs ", "note "):
        assert f"\n{label}" in text
    assert len(text.splitlines()) < 24


def test_all_shows_every_fact(show: Callable[..., str], tmp_path: Path) -> None:
    path = make_long_report(tmp_path / "report.json")
    text = show(path, "--all")
    assert text.count("other work ran") >= 8
    assert "cold start" in text


def test_several_are_a_table_in_reading_order(show: Callable[..., str], tmp_path: Path) -> None:
    for number, report in enumerate(make_several(2)):
        (tmp_path / f"{number}.json").write_bytes(encode_report(report))
    files = sorted(map(str, tmp_path.glob("*.json")), reverse=True)
    text = show(*files)
    rows = [line for line in text.splitlines() if "digits-cnn" in line]
    assert [row.split()[2:4] for row in rows] == [
        [precision, device]
        for device in ("bench-1", "bench-2")
        for precision in ("fp16", "fp32", "int8")
    ]
    assert max(map(len, text.splitlines())) <= 80


def test_several_as_json_and_as_a_page(capsys, tmp_path: Path) -> None:
    for number, report in enumerate(make_several(1)):
        (tmp_path / str(number)).mkdir()
        (tmp_path / str(number) / "report.json").write_bytes(encode_report(report))
    page = tmp_path / "page.html"
    assert run(["report", str(tmp_path), "-o", str(page), "--format", "json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["schema"] == "edgesdk.report-list/1"
    assert [each["bundle"]["precision"] for each in document["reports"]] == [
        "fp16",
        "fp32",
        "int8",
    ]
    assert "3 benchmark reports" in page.read_text(encoding="utf-8")
