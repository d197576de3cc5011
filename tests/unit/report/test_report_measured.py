"""What a page says of trust, procedure, energy and other releases, where there are such."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from edgesdk.bench.compare_values import Comparison, PairedBlock
from edgesdk.bench.procedure_values import Around, Energy, Procedure, Served, WarmUp
from edgesdk.bench.statistics import make_latency
from edgesdk.bench.trust_values import Outliers, Trust, TrustReason
from edgesdk.bench.values import BenchmarkReport, BenchSpec
from edgesdk.report.files import encode_report
from edgesdk.report.html import render_html
from edgesdk.report.measured import runs_text
from edgesdk.report.overview import overview_table
from edgesdk.report.paired import blocks_plot
from edgesdk.report.plots import timeline_plot
from edgesdk.report.read import parse_report
from tests.unit.report.fixtures import FP32, INT8, make_sample_report, make_several, vary
from tests.unit.report.test_report_html import HOSTILE, Outline


def make_trust(**fields: Any) -> Trust:
    known: dict[str, Any] = {
        "grade": "C",
        "reasons": (
            TrustReason(about="drift", weight="serious", text="the runs got 4 % slower"),
            TrustReason(about="load", weight="minor", text="others took 0.3 cores"),
        ),
        "effective_samples": 118.0,
        "warmup_left": 0,
        "drift": 0.04,
        "modes_ms": (),
        "outliers": Outliers(count=4, share=0.01, time_share=0.02, above_ms=6.0),
    }
    return Trust(**{**known, **fields})


def make_procedure(**fields: Any) -> Procedure:
    known: dict[str, Any] = {
        "stopped": "interval",
        "why": "the interval of the median was narrow enough, after 400 runs",
        "half_width": 0.0042,
        "warm_up": WarmUp(runs=80, seconds=0.21, settled=True, how="two windows agreed"),
        "around": Around(
            runs=30,
            in_ms=0.01,
            calls_ms=3.9,
            between_ms=None,
            out_ms=0.02,
            link_ms=None,
            link_runs=0,
            why="the line is too slow to ask often",
        ),
        "inferences": 400,
        "per_s": 251.4,
        "one_call": None,
        "runs_by_stream": (400,),
        "served": None,
        "energy": (
            Energy(
                sensor="VDD_IN",
                kind="sampled",
                joules=7.9,
                mean_w=5.0,
                samples=3,
                per_inference_mj=19.75,
            ),
        ),
        "energy_per_inference_mj": 19.75,
        "energy_why": "from VDD_IN",
        "others_cpu": 0.31,
        "sampling_cpu": 0.0008,
        "clock_went_back": 0,
        "odd_outputs": {"logits": 0},
        "incomplete": "",
    }
    return Procedure(**{**known, **fields})


def make_comparison(**fields: Any) -> Comparison:
    known: dict[str, Any] = {
        "ours": INT8,
        "theirs": FP32,
        "device": "bench-3",
        "started": "2026-01-15T09:30:00Z",
        "blocks": tuple(
            PairedBlock(
                start=0,
                t_s=0.1 * i,
                ours_ms=4.0 + 0.01 * (i % 5),
                theirs_ms=5.0,
                runs=(20, 20),
                ours_first=i % 2 == 0,
            )
            for i in range(40)
        ),
        "starts": 2,
        "mode": "side-by-side",
        "ratio": 0.804,
        "lower": 0.799,
        "upper": 0.809,
        "coverage": 0.95,
        "log_error": 0.003,
        "freedom": 9.0,
        "seed": 7,
        "seconds": 9.8,
        "throttled": False,
        "emulated": None,
        "notes": ("both were loaded at once",),
    }
    return Comparison(**{**known, **fields})


def bare(**fields: Any) -> BenchmarkReport:
    """A report that is drawn quickly."""
    return vary(**{"baseline": None, "latency": make_latency([]), **fields})


def test_a_page_without_them_does_not_mention_them() -> None:
    text = Outline(render_html([bare()])).text
    for word in ("Trust", "How it was measured", "Other releases", "Incomplete", "energy"):
        assert word not in text


def test_trust_is_shown_with_every_reason() -> None:
    page = render_html([bare(trust=make_trust())])
    text = Outline(page).text
    assert "Trust C" in text
    assert "drift, serious: the runs got 4 % slower" in text
    assert "load, minor: others took 0.3 cores" in text
    assert '<div class="verdict fair" role="note" aria-label="Trust">' in page


def test_overview_has_the_grade_of_each() -> None:
    one, *others = make_several(1)
    shown = overview_table([replace(one, trust=make_trust()), *others])
    assert [row[shown.columns.index("trust")] for row in shown.rows] == ["C", "-", "-"]
    brief = overview_table([replace(one, trust=make_trust()), *others], brief=True)
    assert "trust" in brief.columns
    assert "trust" not in overview_table(others, brief=True).columns


def test_procedure_says_how_it_came_about() -> None:
    text = Outline(render_html([bare(procedure=make_procedure())])).text
    for words in (
        "the interval of the median was narrow enough, after 400 runs",
        "± 0.42 %",
        "80 runs in 0.21 s, settled: two windows agreed",
        "0.31 cores",
        "0.08% of a core",
        "19.8 mJ an inference (from VDD_IN)",
        "VDD_IN sensor of power 7.9 J 5 W 19.8 mJ",
        "medians of 30 runs of their own",
        "The line is too slow to ask often.",
    ):
        assert words in text
    assert "odd outputs" not in text


def test_a_server_says_what_arrived_and_what_waits() -> None:
    spec = BenchSpec(scenario="server", streams=4, rate_per_s=100.0, batch=2)
    served = Served(arrived_per_s=99.0, done_per_s=80.0, service_ms=9.0, waiting_at_end=12)
    report = bare(spec=spec, procedure=make_procedure(served=served, one_call=True))
    text = Outline(render_html([report])).text
    assert "99/s arrived, 80/s done" in text
    assert "2 inferences in one call of the runtime" in text
    assert "server, 4 at a time, 2 inferences each" in runs_text(report)


def test_what_is_odd_or_incomplete_stands_out() -> None:
    broken = make_procedure(
        stopped="broken",
        incomplete="lost bench-3: no reply for 10 s",
        odd_outputs={"logits": 3},
        energy_per_inference_mj=None,
        energy_why="this device has no sensor of power or energy",
    )
    text = Outline(render_html([bare(procedure=broken)])).text
    assert "Incomplete Lost bench-3: no reply for 10 s. What had arrived by then" in text
    assert "logits: 3 NaN or infinite" in text
    assert "this device has no sensor of power or energy" in text


def test_a_comparison_is_drawn_and_told() -> None:
    page = render_html(
        [bare(comparisons=(make_comparison(), make_comparison(adjusted_p=0.04)))]
    )
    text = Outline(page).text
    assert page.count("Against b2c4d6e8f0a1") == 2
    assert (
        "0.804 times as long (95 % interval 0.799 to 0.809, 40 pairs of blocks, 2 starts)"
        in text
    )
    assert "0.04, Holm's" in text
    assert "seed 7" in text
    assert "Both were loaded at once." in text
    assert page.count('href="#r0-0-') > 0


@pytest.mark.parametrize("count", [1, 5000])
def test_blocks_of_any_number_can_be_drawn(count: int) -> None:
    block = make_comparison().blocks[0]
    drawn = blocks_plot(make_comparison(blocks=(block,) * count), "x")
    assert drawn is not None
    assert len(drawn.svg) < 100_000
    assert ("every 10th is drawn" in drawn.caption) is (count == 5000)


def test_blocks_without_a_time_are_no_plot() -> None:
    block = replace(make_comparison().blocks[0], theirs_ms=0.0)
    assert blocks_plot(make_comparison(blocks=(block,)), "x") is None


def test_timeline_shows_power_and_the_load_of_others_where_told() -> None:
    report = make_sample_report()
    samples = tuple(
        replace(sample, others_cpu=0.1, power_w={"VDD_IN": 5.0, "VDD_CPU": 2.0})
        for sample in report.conditions.samples
    )
    full = replace(report, conditions=replace(report.conditions, samples=samples))
    for one, said in (
        (report, "Below: mean clock, warmest zone."),
        (full, "Below: mean clock, warmest zone, load of others, largest sensor of power."),
    ):
        drawn = timeline_plot(one, "t")
        assert drawn is not None
        assert drawn.caption == said


def test_runs_that_overlap_are_not_put_one_after_the_other() -> None:
    drawn = timeline_plot(vary(spec=BenchSpec(scenario="multi-stream", streams=4)), "t")
    assert drawn is not None
    assert drawn.caption.startswith("Runs overlapped, so they are spread evenly")


def test_hostile_words_of_a_device_stay_text() -> None:
    procedure = make_procedure(
        why=HOSTILE,
        incomplete=HOSTILE,
        energy_why=HOSTILE,
        odd_outputs={HOSTILE: 1},
        energy=(replace(make_procedure().energy[0], sensor=HOSTILE),),
        around=replace(make_procedure().around, why=HOSTILE),
    )
    report = bare(
        procedure=procedure,
        trust=make_trust(
            grade="B", reasons=(TrustReason(about="load", weight="minor", text=HOSTILE),)
        ),
        comparisons=(make_comparison(notes=(HOSTILE,), device=HOSTILE),),
    )
    page = render_html([parse_report(encode_report(report), name="r.json")])
    assert "<script" not in page
    assert "\x1b" not in page
