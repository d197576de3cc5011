"""Reports to render: one that looks like a real measurement, and ways to vary it."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

from edgesdk.bench.statistics import make_latency, percentile, throughput_per_s
from edgesdk.bench.values import (
    Accuracy,
    AccuracyResult,
    Baseline,
    BenchmarkReport,
    BenchSpec,
    BundleRecord,
    CheckedOutput,
    Conditions,
    ConditionSample,
    Contest,
    Contestant,
    DeploymentRecord,
    DeviceRecord,
    HostCheck,
    ModelRecord,
    PartRecord,
    Placement,
    PlacementRow,
    Ratio,
    ReferenceOutput,
    TargetRecord,
    TensorRecord,
)

INT8 = "3f8a61d2c07b94e5" * 4
FP32 = "b2c4d6e8f0a13579" * 4


def lognormal_ms(count: int, median_ms: float, seed: int) -> list[float]:
    generator = random.Random(seed)
    times = [median_ms * generator.lognormvariate(0, 0.045) for _ in range(count)]
    for place in range(37, count, 61):
        times[place] *= 1.6
    return [round(time, 6) for time in times]


def accuracy(value: float, lower: float, upper: float, *, cosine: float) -> Accuracy:
    return Accuracy(
        host_check=HostCheck(
            passed=True,
            vectors=8,
            outputs=(
                CheckedOutput(
                    name="logits",
                    within=True,
                    max_abs_error=0.0,
                    allowed=0.0831,
                    mismatches=0,
                    elements=80,
                ),
            ),
        ),
        reference=(
            ReferenceOutput(
                name="logits",
                vectors=8,
                cosine=cosine,
                max_abs_error=0.2177,
                top1_agreement=1.0,
                rows=8,
            ),
        ),
        labelled=AccuracyResult(
            metric="top-1",
            kind="rate",
            value=value,
            lower=lower,
            upper=upper,
            samples=360,
            where="device",
        ),
        labelled_reference=None,
    )


def make_conditions() -> Conditions:
    samples = tuple(
        ConditionSample(
            t_s=0.05 * i,
            cpu_mhz=(2400.0 - 12 * (i > 20), 2400.0, 2400.0, 2396.0),
            temp_c={"cpu-thermal": 51.5 + 0.2 * i, "rp1-adc": 48.0 + 0.05 * i},
            load1=0.31 + 0.01 * i,
            throttled=(),
            mem_available_bytes=7_100_000_000 - i * 1000,
        )
        for i in range(40)
    )
    return Conditions(
        static={
            "governor": "ondemand",
            "max_mhz": (2400.0, 2400.0, 2400.0, 2400.0),
            "turbo": None,
            "cpu_count": 4,
            "cpus_allowed": 4,
        },
        samples=samples,
        throttled=False,
        notes=("the clock governor is ondemand, so the clock follows the load",),
    )


def make_baseline() -> Baseline:
    samples = lognormal_ms(400, 9.71, 2)
    return Baseline(
        bundle=BundleRecord(id=FP32, name="digits-cnn", precision="fp32", bytes=1_843_200),
        latency=make_latency(samples),
        cold_start_ms=612.0,
        load_ms=47.0,
        first_run_ms=13.2,
        throughput_per_s=throughput_per_s(samples),
        peak_rss_bytes=91_226_112,
        accuracy=accuracy(0.9861, 0.968, 0.9941, cosine=0.9999999),
        verdict="cpu-as-planned",
    )


def make_contestant(
    backend: str, runtime: str, median_ms: float, *, bundle: str, **fields: Any
) -> Contestant:
    latency = make_latency(lognormal_ms(400, median_ms, 3))
    contestant = Contestant(
        backend=backend,
        bundle=BundleRecord(id=bundle, name="digits-cnn", precision="int8", bytes=512_000),
        nodes={backend: 41},
        runtimes=(runtime,),
        latency=latency,
        p95_ms=percentile(latency.samples_ms, 0.95),
        rounds=(40,) * 10,
        cold_start_ms=583.0,
        load_ms=38.2,
        peak_rss_bytes=78_643_200,
        ratio=None,
        labelled=None,
        why_out="",
    )
    return replace(contestant, **fields)


def make_contest(**fields: Any) -> Contest:
    """Give a contest that onnxruntime won, with one that dropped out."""
    contest = Contest(
        contestants=(
            make_contestant("ort-cpu", "onnxruntime 1.23.2", 3.9, bundle=INT8),
            make_contestant(
                "litert-cpu",
                "litert 2.1.0",
                6.3,
                bundle=FP32,
                ratio=Ratio(value=1.61, lower=1.58, upper=1.66, coverage=0.978, rounds=10),
            ),
            make_contestant(
                "other-cpu",
                "",
                1.0,
                bundle=FP32,
                latency=None,
                p95_ms=None,
                rounds=(),
                cold_start_ms=None,
                load_ms=None,
                peak_rss_bytes=None,
                runtimes=(),
                why_out="cannot deploy to bench-3: it has no other: No module named 'other'",
            ),
        ),
        winner="ort-cpu",
        decided_by="time",
        why="ort-cpu is the fastest: litert-cpu takes 1.61 times as long "
        "(95 % interval 1.58 to 1.66, 10 rounds)",
        throttled=False,
        emulated=None,
    )
    return replace(contest, **fields)


def make_sample_report() -> BenchmarkReport:
    samples = lognormal_ms(400, 3.94, 1)
    return BenchmarkReport(
        schema="edgesdk.report/1",
        created="2026-01-15T09:30:00Z",
        edgesdk="0.1.0",
        verdict="cpu-as-planned",
        verdict_reasons=("part 0: onnxruntime 1.23.2 on CPUExecutionProvider",),
        model=ModelRecord(
            name="digits-cnn",
            format="onnx",
            sha256="0123456789abcdef" * 4,
            bytes=1_851_392,
            inputs=(TensorRecord(name="image", dtype="float32", shape=(1, 1, 16, 16)),),
            outputs=(TensorRecord(name="logits", dtype="float32", shape=(1, 10)),),
        ),
        target=TargetRecord(
            name="raspberry-pi-5", family="arm-cpu", digest="ab" * 32, assumed=("ram_bytes",)
        ),
        device=DeviceRecord(
            name="bench-3",
            url="ssh://pi@10.0.0.7",
            machine="aarch64",
            cpu_model="Cortex-A76",
            cpu_count=4,
            device_tree_model="Raspberry Pi 5 Model B Rev 1.0",
            ram_bytes=8_455_716_864,
            system="Linux",
            kernel="6.6.31+rpt-rpi-2712",
            os="Debian GNU/Linux 12",
            python="3.11.2",
            agent_version="0.1.0",
            agent_sha256="cd" * 32,
        ),
        bundle=BundleRecord(id=INT8, name="digits-cnn", precision="int8", bytes=486_912),
        parts=(
            PartRecord(
                index=0,
                backend="ort-cpu",
                runtime="onnxruntime",
                format="onnx",
                precision="int8",
                bytes=486_912,
                runtime_version="1.23.2",
                detail={"providers": ("CPUExecutionProvider",), "threads": 4},
                median_ms=3.94,
                share=1.0,
            ),
        ),
        deployment=DeploymentRecord(
            bundle_id=INT8,
            device="bench-3",
            device_url="ssh://pi@10.0.0.7",
            path="ssh",
            started="2026-01-15T09:29:51Z",
            seconds=2.41,
            blobs_sent=9,
            bytes_sent=512_020,
            bytes_skipped=0,
            slot="current",
            previous=None,
            self_check_passed=True,
            self_check_reused=False,
            target_mismatch=(),
            noise_bytes=0,
        ),
        spec=BenchSpec(),
        started="2026-01-15T09:29:55Z",
        wall_s=1.68,
        latency=make_latency(samples),
        cold_start_ms=583.0,
        load_ms=38.2,
        first_run_ms=6.1,
        throughput_per_s=throughput_per_s(samples),
        peak_rss_bytes=78_643_200,
        conditions=make_conditions(),
        placement=Placement(
            predicted=(
                PlacementRow(
                    backend="ort-cpu", accelerator=False, nodes=41, share=1.0, detail=""
                ),
            ),
            as_built=(
                PlacementRow(
                    backend="ort-cpu",
                    accelerator=False,
                    nodes=None,
                    share=None,
                    detail="part 0: int8 onnx, 26 nodes quantized, 1 left in float",
                ),
            ),
            actual=(
                PlacementRow(
                    backend="ort-cpu",
                    accelerator=False,
                    nodes=38,
                    share=1.0,
                    detail="part 0: onnxruntime 1.23.2 on CPUExecutionProvider",
                ),
            ),
        ),
        accuracy=accuracy(0.9833, 0.964, 0.9923, cosine=0.99874),
        baseline=make_baseline(),
        repeat=("edgesdk bench bench-3 --runs 400",),
    )


def vary(**fields: Any) -> BenchmarkReport:
    return replace(make_sample_report(), **fields)


def make_several(devices: int = 2, *, runs: int = 400) -> list[BenchmarkReport]:
    """Give float, half and int8 of one model on some devices, of a day each."""
    report = make_sample_report()
    kinds = (("fp32", 9.7, 1_843_200, 0.9861), ("fp16", 6.0, 930_000, 0.9855))
    several = []
    for device in range(devices):
        for place, (precision, median_ms, size, top1) in enumerate(
            (*kinds, ("int8", 3.9, 486_912, 0.9833))
        ):
            several.append(
                replace(
                    report,
                    created=f"2026-01-{10 + device % 20:02d}T09:30:00Z",
                    device=replace(report.device, name=f"bench-{device + 1}"),
                    bundle=replace(
                        report.bundle,
                        id=f"{device:02x}{place:02x}" * 16,
                        precision=precision,
                        bytes=size,
                    ),
                    latency=make_latency(
                        lognormal_ms(runs, median_ms * (1 + 0.35 * device), 3 * device + place)
                    ),
                    accuracy=accuracy(top1, 0.96, 0.995, cosine=0.998),
                    baseline=None,
                )
            )
    return several
