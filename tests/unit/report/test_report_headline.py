"""What is shown first is short, and claims no more than was measured."""

from __future__ import annotations

from dataclasses import replace

from edgesdk.bench.statistics import make_latency
from edgesdk.report.headline import make_headline, remark_rows
from tests.unit.report.fixtures import make_sample_report, vary


def test_with_a_baseline_before_and_after_stand_side_by_side() -> None:
    headline = make_headline(make_sample_report())
    assert headline.columns == ("", "fp32", "int8", "")
    assert headline.rows == (
        ("top-1", "98.61%", "98.33%", "-0.28 points on 360 samples"),
        ("p50 latency", "9.72 ms", "3.95 ms", "2.46 times as fast"),
        ("p90", "10.3 ms", "4.20 ms", ""),
        ("p99", "14.7 ms", "6.26 ms", ""),
        ("size", "1.8 MiB", "476 KiB", "26% of fp32"),
        ("peak memory", "87.0 MiB", "75.0 MiB", ""),
    )


def test_without_a_baseline_the_last_column_has_intervals_and_reasons() -> None:
    report = vary(baseline=None, latency=make_latency([1.0] * 40))
    headline = make_headline(report)
    rows = {row[0]: row[1:] for row in headline.rows}
    assert headline.columns == ("", "int8", "")
    assert rows["top-1"] == ("98.33%", "95 % interval 96.40% to 99.23%, 360 samples")
    assert rows["p50 latency"] == ("1.00 ms", "95 % interval 1.00 to 1.00 ms")
    assert rows["p99"] == ("-", "needs 368 samples, has 40")
    assert rows["size"] == ("476 KiB", "")


def test_times_of_an_emulated_device_are_called_that() -> None:
    report = make_sample_report()
    static = {**report.conditions.static, "emulated": "qemu-user"}
    report = replace(report, conditions=replace(report.conditions, static=static))
    labels = [row[0] for row in make_headline(report).rows]
    assert labels[1:4] == ["p50 latency, emulated", "p90, emulated", "p99, emulated"]


def test_the_unquantized_model_is_what_accuracy_is_compared_with_then() -> None:
    report = vary(baseline=None)
    unquantized = replace(report.accuracy.labelled, value=0.99, where="host")
    report = replace(report, accuracy=replace(report.accuracy, labelled_reference=unquantized))
    assert make_headline(report).rows[0] == (
        "top-1",
        "98.33%",
        "99.00% unquantized, on the host",
    )


def test_what_was_not_measured_has_no_row() -> None:
    report = vary(baseline=None, latency=make_latency([]), peak_rss_bytes=None)
    report = replace(report, accuracy=replace(report.accuracy, labelled=None))
    assert [row[0] for row in make_headline(report).rows] == ["size"]


def test_no_difference_is_claimed_where_there_is_none() -> None:
    report = make_sample_report()
    assert report.baseline is not None
    same = replace(report, latency=report.baseline.latency)
    same = replace(same, accuracy=report.baseline.accuracy)
    remarks = {row[0]: row[-1] for row in make_headline(same).rows}
    assert remarks["p50 latency"] == "no clear difference"
    assert remarks["top-1"] == "the same on 360 samples"


def test_remarks_say_where_it_ran_how_near_it_is_and_what_disturbed_it() -> None:
    rows = [(row.label, row.value) for row in remark_rows(make_sample_report())]
    assert rows == [
        (
            "ran",
            "planned for the CPU and ran there; "
            "part 0: onnxruntime 1.23.2 on CPUExecutionProvider",
        ),
        (
            "outputs",
            "same as on the host in 8 check vectors; logits has cosine 0.99874 to float",
        ),
        ("note", "the clock governor is ondemand, so the clock follows the load"),
    ]


def test_outputs_that_differ_from_the_hosts_are_not_passed_over() -> None:
    report = make_sample_report()
    assert report.accuracy.host_check is not None
    failed = replace(report.accuracy.host_check, passed=False)
    report = replace(report, accuracy=replace(report.accuracy, host_check=failed))
    rows = {row.label: row.value for row in remark_rows(report)}
    assert rows["outputs"].startswith("NOT the same as on the host in 8 check vectors")
