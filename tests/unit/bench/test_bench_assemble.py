"""Reports are put together from what was built, sent and measured."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from edgesdk.bench.assemble import NO_ACCURACY, assemble_report, device_record, make_baseline
from edgesdk.bench.measurements import Measurements, plain_detail, read_measurements
from edgesdk.bench.procedure import read_procedure
from edgesdk.bench.values import (
    VERDICTS,
    Accuracy,
    AccuracyResult,
    BenchmarkReport,
    BenchSpec,
    HostCheck,
    ReferenceOutput,
)
from edgesdk.bench.verdict import ran_on_accelerator
from edgesdk.report.files import encode_report
from edgesdk.report.read import parse_report
from tests.unit.bench.fixtures import REPLY, make_bundle, make_device, reply_frame


def measured(*samples_ms: float, **changes: Any) -> Measurements:
    return read_measurements(reply_frame(list(samples_ms or (2.0, 3.0)), **changes), device="d")


def ran(*details: dict[str, Any]) -> dict[str, Any]:
    runtimes = [
        {"part": i, "runtime": "onnxruntime", "version": "1.20", "detail": detail}
        for i, detail in enumerate(details)
    ]
    return {"runtimes": runtimes}


def assembled(**changes: Any) -> BenchmarkReport:
    given: dict[str, Any] = {
        "bundle": make_bundle(),
        "spec": BenchSpec(runs=2),
        "measured": measured(),
        "device": make_device(),
        "created": "2026-01-15T09:30:00Z",
        **changes,
    }
    return assemble_report(**given)


def test_a_report_names_what_ran_and_how_fast() -> None:
    report = assembled()
    assert report.bundle.id == "ef" * 32
    assert report.bundle.bytes == 100
    assert report.latency.samples_ms == (2.0, 3.0)
    assert report.throughput_per_s == pytest.approx(400.0)
    assert report.latency.p50_ms is None
    assert report.latency.why["p50_ms"] == "needs 6 samples, has 2"
    assert report.cold_start_ms == 300.5
    assert report.model.inputs[0].shape == (1, "n")
    assert report.target.assumed == ("ram_bytes",)


def test_placement_is_told_three_times() -> None:
    placement = assembled().placement
    assert [(row.backend, row.nodes, row.share) for row in placement.predicted] == [
        ("ort-cpu", 12, 1.0)
    ]
    assert placement.as_built[0].detail == (
        "part 0: int8 onnx, 9 nodes quantized, 1 left in float"
    )
    assert placement.actual[0].detail == ("part 0: onnxruntime 1.23.2 on CPUExecutionProvider")
    assert placement.actual[0].nodes == 12
    assert placement.actual[0].accelerator is False


def test_what_was_planned_for_the_cpu_and_ran_there_says_so() -> None:
    assert assembled().verdict == "cpu-as-planned"


CPU = {"assignment": {"CPUExecutionProvider": 9}}
GPU = {"assignment": {"CUDAExecutionProvider": 9, "CPUExecutionProvider": 1}}


@pytest.mark.parametrize(
    ("details", "verdict"),
    [
        ([CPU, CPU], "fell-back-to-cpu"),
        ([GPU, CPU], "partly-fell-back"),
        ([GPU, GPU], "accelerated"),
        ([GPU, {}], "placement-unknown"),
        ([{}, CPU], "partly-fell-back"),
    ],
)
def test_falling_back_to_the_cpu_is_a_verdict_of_its_own(
    details: list[dict[str, Any]], verdict: str
) -> None:
    report = assembled(
        bundle=make_bundle("cuda", "cuda"),
        measured=measured(**ran(*details)),
        accelerators={"cuda"},
    )
    assert report.verdict == verdict
    if "fell" in verdict:
        assert "was planned for cuda: part" in report.verdict_reasons[0]


def test_nothing_built_for_an_accelerator_that_was_planned_is_a_fall_back() -> None:
    """A compiler was missing: all parts are for the CPU, and the plan had others."""
    bundle = make_bundle("ort-cpu")
    bundle.manifest["predicted"]["nodes_by_backend"] = {"tpu": 11, "ort-cpu": 1}
    report = assembled(bundle=bundle, accelerators={"tpu"})
    assert report.verdict == "fell-back-to-cpu"
    assert "nothing was built for tpu" in report.verdict_reasons[0]


def test_a_part_the_device_never_named_is_unknown() -> None:
    report = assembled(
        bundle=make_bundle("npu"), measured=measured(runtimes=[]), accelerators={"npu"}
    )
    assert report.verdict == "placement-unknown"
    assert report.verdict_reasons == ("onnxruntime does not tell where part 0 ran",)


@pytest.mark.parametrize(
    ("detail", "accelerated"),
    [
        ({"providers": ["CPUExecutionProvider"]}, False),
        ({"providers": ["TensorrtExecutionProvider", "CPUExecutionProvider"]}, None),
        ({"delegate": None, "ops": {"CONV_2D": 4}}, False),
        ({"delegate": "edgetpu", "ops": {"edgetpu-custom-op": 1}}, True),
        ({"delegate": "vx", "ops": {"CONV_2D": 4}}, False),
        ({"delegate": "vx", "ops": {"DELEGATE": 1, "SOFTMAX": 1}}, True),
        ({"delegate": "vx", "ops": None}, None),
        ({"device": "NPU", "execution_devices": ["NPU"]}, True),
        ({"device": "AUTO:NPU,CPU", "execution_devices": ["(CPU)"]}, False),
        ({"device": "AUTO:NPU,CPU"}, None),
        ({"device": "CPU"}, False),
        ({"accelerator": True, "device": "CPU"}, True),
        ({}, None),
    ],
)
def test_a_runtime_is_taken_at_its_word_and_no_further(
    detail: dict[str, Any], accelerated: bool | None
) -> None:
    assert ran_on_accelerator(plain_detail(detail)) is accelerated


def test_no_samples_is_not_measured() -> None:
    assert assembled(measured=None).verdict == "not-measured"
    empty = assembled(measured=read_measurements(reply_frame([]), device="d"))
    assert empty.verdict == "not-measured"
    assert empty.throughput_per_s is None


def rate(value: float, lower: float, upper: float) -> AccuracyResult:
    return AccuracyResult(
        metric="top-1",
        kind="rate",
        value=value,
        lower=lower,
        upper=upper,
        samples=100,
        where="device",
    )


def test_outputs_that_differ_from_the_host_are_suspect() -> None:
    wrong = replace(NO_ACCURACY, host_check=HostCheck(passed=False, vectors=1, outputs=()))
    report = assembled(accuracy=wrong)
    assert report.verdict == "accuracy-suspect"
    assert "differ from the host" in report.verdict_reasons[0]


@pytest.mark.parametrize(
    ("cosine", "agreement", "rows", "verdict"),
    [
        (0.999, 1.0, 8, "cpu-as-planned"),
        (0.5, 1.0, 8, "accuracy-suspect"),
        (0.95, 0.75, 8, "cpu-as-planned"),
        (0.95, 0.5, 200, "accuracy-suspect"),
        (None, None, 0, "cpu-as-planned"),
    ],
)
def test_distance_from_the_unquantized_model_is_suspect_beyond_chance(
    cosine: float | None, agreement: float | None, rows: int, verdict: str
) -> None:
    output = ReferenceOutput(
        name="y",
        vectors=8,
        cosine=cosine,
        max_abs_error=0.1,
        top1_agreement=agreement,
        rows=rows,
    )
    assert assembled(accuracy=replace(NO_ACCURACY, reference=(output,))).verdict == verdict


def test_a_metric_is_suspect_where_the_intervals_do_not_meet() -> None:
    def judged(ours: AccuracyResult) -> str:
        accuracy = Accuracy(
            host_check=None,
            reference=(),
            labelled=ours,
            labelled_reference=rate(0.98, 0.95, 0.99),
        )
        return assembled(accuracy=accuracy).verdict

    assert judged(rate(0.5, 0.4, 0.6)) == "accuracy-suspect"
    assert judged(rate(0.95, 0.9, 0.97)) == "cpu-as-planned"


def test_every_verdict_is_explained() -> None:
    assert all(meaning for meaning in VERDICTS.values())


def test_conditions_say_what_to_mind() -> None:
    def sample(t_s: float, mhz: float, celsius: float, throttled: list[str]) -> dict[str, Any]:
        return {
            "t_s": t_s,
            "cpu_mhz": [mhz],
            "temp_c": {"cpu": celsius},
            "load1": 3.5,
            "throttled": throttled,
        }

    conditions = {
        "static": {"governor": "ondemand"},
        "samples": [sample(0, 1500, 50, []), sample(1, 1000, 85, ["throttled"])],
    }
    report = assembled(measured=measured(conditions=conditions), spec=BenchSpec(runs=9))
    assert report.conditions.throttled is True
    assert report.conditions.notes == (
        "the time limit of 60 s ended it after 2 runs",
        "the clock governor is ondemand, so the clock follows the load",
        "the clock was limited in 1 of 2 samples: throttled",
        "the mean clock moved between 1000 and 1500 MHz",
        "the device warmed up from 50 to 85 °C",
        "other work ran at the start: a load of 3.50 on 4 cores",
    )


def test_floats_that_were_held_at_another_type_than_usual_are_noted() -> None:
    usual = {"precision": "f32", "default_precision": "f32"}
    held = {"precision": "f32", "default_precision": "bf16"}
    (note,) = assembled(measured=measured(**ran(usual, held))).conditions.notes
    assert note == (
        "part 1: floats are held at f32; left alone, onnxruntime computes them in bf16 on this "
        "processor, which is less exact"
    )


def test_a_quiet_device_leaves_no_notes_and_a_silent_one_is_named() -> None:
    assert assembled().conditions.notes == ()
    silent = assembled(measured=measured(conditions={}))
    assert silent.conditions.throttled is None
    assert silent.conditions.notes == (
        "the device tells nothing about clock, temperature or load",
    )


def test_an_emulated_device_is_the_first_thing_to_mind() -> None:
    emulated = {"static": {"emulated": "qemu-user", "cpu_count": 4}, "samples": []}
    report = assembled(measured=measured(conditions=emulated))
    assert report.conditions.static["emulated"] == "qemu-user"
    assert report.conditions.notes[0] == (
        "the device is emulated (qemu-user): a board takes other times, "
        "and another backend may be the faster one there"
    )


def test_a_baseline_holds_the_same_measures() -> None:
    baseline = make_baseline(
        bundle=make_bundle(precision="fp32"), measured=measured(4.0, 5.0), spec=BenchSpec()
    )
    assert baseline.bundle.precision == "fp32"
    assert baseline.latency.samples_ms == (4.0, 5.0)
    assert baseline.peak_rss_bytes == REPLY["peak_rss_bytes"]
    assert baseline.throughput_per_s == pytest.approx(2 / 0.009)
    assert assembled(baseline=baseline).baseline == baseline


def test_a_baseline_in_batches_counts_inferences_as_the_report_does() -> None:
    spec = BenchSpec(scenario="offline", batch=32)
    frame = reply_frame([32.0] * 100, wall_s=3.2)
    found = replace(
        read_measurements(frame, device="d"), procedure=read_procedure(frame.meta, spec)
    )
    baseline = make_baseline(bundle=make_bundle(), measured=found, spec=spec)
    report = assembled(measured=found, spec=spec)
    assert baseline.throughput_per_s == report.throughput_per_s == 1000.0


def test_a_device_describes_itself_as_far_as_it_makes_sense() -> None:
    record = device_record(
        name="bench-3",
        url="ssh://pi@10.0.0.7",
        facts={
            "machine": "aarch64",
            "cpu_count": "four",
            "os": {"name": "Debian", "version": "12"},
        },
        agent_version="0.1.0",
        agent_sha256="ab" * 32,
    )
    assert (record.machine, record.cpu_count, record.os) == ("aarch64", None, "Debian 12")
    empty = device_record(
        name="d", url=None, facts={"os": 7}, agent_version="", agent_sha256=None
    )
    assert (empty.os, empty.agent_version) == (None, None)


def test_a_part_that_a_fallback_ran_says_from_what_and_why() -> None:
    runtimes = [
        {
            "part": 0,
            "runtime": "onnxruntime",
            "backend": "ort-cpu",
            "version": "1.23.2",
            "detail": {
                "providers": ["CPUExecutionProvider"],
                "fell_back": ["tensorrt (tensorrt): it is not finished for this device"],
            },
        }
    ]
    measured = read_measurements(reply_frame([1.0], runtimes=runtimes), device="bench-3")
    report = assemble_report(
        bundle=make_bundle("tensorrt"),
        spec=BenchSpec(),
        measured=measured,
        device=make_device(),
        accelerators={"tensorrt"},
    )
    (row,) = report.placement.actual
    assert (row.backend, row.accelerator) == ("ort-cpu", False)
    assert "fell back from tensorrt (tensorrt): it is not finished" in row.detail
    assert report.verdict == "fell-back-to-cpu"
    assert report.verdict_reasons[0].startswith("part 0 was planned for tensorrt: ")
    assert report.parts[0].runtime == "onnxruntime"


@pytest.mark.parametrize("odd", [1 << 64, 10**400, 1e999, -1, True, "3"])
def test_an_origin_that_no_report_can_hold_counts_as_not_told(odd: object) -> None:
    bundle = make_bundle()
    bundle.manifest["model"]["origin"] = {
        "format": "keras",
        "examples": odd,
        "max_abs_error": odd,
        "max_rel_error": 0.25,
    }
    report = assembled(bundle=bundle)
    origin = parse_report(encode_report(report), name="it").model.origin
    assert origin is not None
    assert (origin.examples, origin.max_abs_error, origin.max_rel_error) == (0, None, 0.25)
