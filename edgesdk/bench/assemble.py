"""Put a report together from the bundle, the receipt, the outputs and the measurements."""

from __future__ import annotations

import datetime as dt
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast, get_args

import edgesdk
from edgesdk.bench.conditions import describe_conditions
from edgesdk.bench.measurements import Measurements, RuntimeRecord
from edgesdk.bench.offload_values import Offload
from edgesdk.bench.origin_values import read_origin
from edgesdk.bench.procedure import throughput
from edgesdk.bench.statistics import make_latency
from edgesdk.bench.trust import grade_measured
from edgesdk.bench.values import (
    Accuracy,
    Baseline,
    BenchmarkReport,
    BenchSpec,
    BundleRecord,
    Contest,
    DeploymentRecord,
    DevicePath,
    DeviceRecord,
    ModelFormat,
    ModelRecord,
    PartRecord,
    Placement,
    PlacementRow,
    TargetRecord,
    TensorRecord,
)
from edgesdk.bench.verdict import choose_verdict, ran_on_accelerator
from edgesdk.bundle import Bundle
from edgesdk.bundle.as_built import as_built_lines
from edgesdk.devices.text import utf8_text
from edgesdk.wire.manifest import is_sha256

if TYPE_CHECKING:
    from edgesdk.deploy.values import Deployment

__all__ = [
    "NO_ACCURACY",
    "assemble_report",
    "bundle_record",
    "deployment_record",
    "device_record",
    "make_baseline",
]

#: Nobody looked at the outputs.
NO_ACCURACY = Accuracy(host_check=None, reference=(), labelled=None, labelled_reference=None)


def assemble_report(
    *,
    bundle: Bundle,
    spec: BenchSpec,
    measured: Measurements | None,
    device: DeviceRecord,
    accelerators: Collection[str] = (),
    deployment: Deployment | None = None,
    accuracy: Accuracy = NO_ACCURACY,
    baseline: Baseline | None = None,
    contest: Contest | None = None,
    repeat: Sequence[str] = (),
    created: str | None = None,
    offload: Offload | None = None,
) -> BenchmarkReport:
    """Put everything known about one measurement into one value.

    It is long because it is one constructor call with every field of a report.

    Args:
        bundle: What ran.
        spec: What was asked for.
        measured: What the device measured, or None if it did not.
        device: The unit that was measured.
        accelerators: Ids of the target's backends that are not its CPU.
        deployment: The receipt, where the bundle was deployed in this session.
        accuracy: What the check vectors and labelled data showed.
        baseline: The same measures of a float bundle of the same session.
        contest: How the bundle was chosen, where it was one of several.
        repeat: Commands that make this measurement again.
        created: When, ISO 8601 in UTC; now if None.
        offload: What the runtimes said they ran where, where they were asked.
    """
    parts = _parts(bundle, measured)
    placement = _placement(bundle, parts, accelerators, measured)
    verdict, reasons = choose_verdict(
        measured=measured is not None and bool(measured.samples_ms),
        parts=parts,
        predicted=placement.predicted,
        actual=placement.actual,
        accelerators=accelerators,
        accuracy=accuracy,
        offload=offload,
    )
    now = dt.datetime.now(dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    samples = measured.samples_ms if measured else ()
    conditions = describe_conditions(measured, spec, cpu_count=device.cpu_count)
    return BenchmarkReport(
        schema="edgesdk.report/1",
        created=created or now,
        edgesdk=edgesdk.__version__,
        verdict=verdict,
        verdict_reasons=reasons,
        model=_model(bundle.manifest),
        target=_target(bundle.manifest),
        device=device,
        bundle=bundle_record(bundle),
        parts=parts,
        deployment=deployment_record(deployment) if deployment else None,
        spec=spec,
        started=measured.started if measured else None,
        wall_s=measured.wall_s if measured else None,
        latency=make_latency(samples),
        cold_start_ms=measured.cold_start_ms if measured else None,
        load_ms=measured.load_ms if measured else None,
        first_run_ms=measured.first_run_ms if measured else None,
        throughput_per_s=throughput(measured, spec),
        peak_rss_bytes=measured.peak_rss_bytes if measured else None,
        conditions=conditions,
        placement=placement,
        accuracy=accuracy,
        baseline=baseline,
        contest=contest,
        repeat=tuple(map(utf8_text, repeat)),
        offload=offload,
        trust=grade_measured(measured, conditions, spec, cpu_count=device.cpu_count),
        procedure=measured.procedure if measured else None,
    )


def make_baseline(
    *,
    bundle: Bundle,
    measured: Measurements,
    spec: BenchSpec,
    accuracy: Accuracy = NO_ACCURACY,
    accelerators: Collection[str] = (),
) -> Baseline:
    """Describe the float bundle that was measured, by the same spec, beside a report's own."""
    parts = _parts(bundle, measured)
    placement = _placement(bundle, parts, accelerators, measured)
    verdict, _ = choose_verdict(
        measured=bool(measured.samples_ms),
        parts=parts,
        predicted=placement.predicted,
        actual=placement.actual,
        accelerators=accelerators,
        accuracy=accuracy,
    )
    return Baseline(
        bundle=bundle_record(bundle),
        latency=make_latency(measured.samples_ms),
        cold_start_ms=measured.cold_start_ms,
        load_ms=measured.load_ms,
        first_run_ms=measured.first_run_ms,
        throughput_per_s=throughput(measured, spec),
        peak_rss_bytes=measured.peak_rss_bytes,
        accuracy=accuracy,
        verdict=verdict,
    )


def deployment_record(deployment: Deployment) -> DeploymentRecord:
    """Take from a receipt what a report keeps; outputs of the self-check go to its accuracy."""
    return DeploymentRecord(
        bundle_id=deployment.bundle_id,
        device=utf8_text(deployment.device),
        device_url=utf8_text(deployment.device_url),
        path=cast("DevicePath", deployment.path),
        started=deployment.started,
        seconds=deployment.seconds,
        blobs_sent=deployment.blobs_sent,
        bytes_sent=deployment.bytes_sent,
        bytes_skipped=deployment.bytes_skipped,
        slot=deployment.slot,
        previous=deployment.previous,
        outcome=deployment.outcome,
        self_check_passed=deployment.self_check.passed,
        self_check_reused=deployment.self_check.reused,
        target_mismatch=deployment.target_mismatch,
        noise_bytes=deployment.noise_bytes,
        delta_bytes=sum(delta.sent_bytes for delta in deployment.deltas),
        delta_made_bytes=sum(delta.bytes for delta in deployment.deltas),
    )


def device_record(
    *,
    name: str,
    url: str | None,
    facts: Mapping[str, Any],
    agent_version: str | None,
    agent_sha256: str | None,
) -> DeviceRecord:
    """Describe a device from its answer to ``facts``; what it does not tell is None.

    ``url`` must hold no secret.
    """
    system = facts.get("os")
    system = system if isinstance(system, Mapping) else {}
    os_name = " ".join(str(system[k]) for k in ("name", "version") if _text(system.get(k)))
    return DeviceRecord(
        name=utf8_text(name),
        url=None if url is None else utf8_text(url),
        machine=_text(facts.get("machine")),
        cpu_model=_text(facts.get("cpu_model")),
        cpu_count=_count(facts.get("cpu_count")),
        device_tree_model=_text(facts.get("device_tree_model")),
        ram_bytes=_count(facts.get("ram_bytes")),
        system=_text(facts.get("system")),
        kernel=_text(facts.get("kernel")),
        os=_text(os_name),
        python=_text(facts.get("python")),
        agent_version=_text(agent_version),
        agent_sha256=_text(agent_sha256),
    )


def _text(value: object) -> str | None:
    return utf8_text(value[:500]) if isinstance(value, str) and value else None


def _count(value: object) -> int | None:
    return value if type(value) is int and 0 <= value < 1 << 63 else None


def _fraction(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if 0 <= value <= 1 else None


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def bundle_record(bundle: Bundle) -> BundleRecord:
    """Take from a bundle what a report keeps."""
    return BundleRecord(
        id=bundle.id,
        name=bundle.name,
        precision=bundle.precision,
        bytes=bundle.part_bytes,
        as_built=tuple(line[:400] for line in as_built_lines(bundle.manifest.get("as_built"))),
    )


def _tensors(values: Sequence[Mapping[str, Any]]) -> tuple[TensorRecord, ...]:
    return tuple(
        TensorRecord(
            name=value["name"],
            dtype=value["dtype"],
            shape=tuple(e if type(e) in (int, str) else None for e in value["shape"]),
        )
        for value in values
    )


def _format(value: object) -> ModelFormat | None:
    return next((known for known in get_args(ModelFormat) if known == value), None)


def _model(manifest: Mapping[str, Any]) -> ModelRecord:
    model = _mapping(manifest["model"])
    sha256 = model.get("sha256")
    return ModelRecord(
        name=_text(model.get("name")) or manifest["name"],
        format=_format(model.get("format")),
        sha256=sha256 if is_sha256(sha256) else None,
        bytes=_count(model.get("bytes")),
        inputs=_tensors(manifest["inputs"]),
        outputs=_tensors(manifest["outputs"]),
        origin=read_origin(_mapping(model.get("origin"))),
    )


def _target(manifest: Mapping[str, Any]) -> TargetRecord:
    target = _mapping(manifest["target"])
    assumed = _mapping(manifest.get("predicted")).get("assumed")
    return TargetRecord(
        name=_text(target.get("name")) or "unnamed",
        family=_text(target.get("family")),
        digest=_text(target.get("sha256")),
        assumed=tuple(str(entry)[:500] for entry in assumed)
        if isinstance(assumed, list)
        else (),
    )


def _parts(bundle: Bundle, measured: Measurements | None) -> tuple[PartRecord, ...]:
    runtimes: dict[int, RuntimeRecord] = (
        {record.part: record for record in measured.runtimes} if measured else {}
    )
    records = []
    for index, part in enumerate(bundle.manifest["parts"]):
        runtime = runtimes.get(index)
        records.append(
            PartRecord(
                index=index,
                backend=part["backend"],
                runtime=runtime.runtime if runtime else part["runtime"],
                format=part["format"],
                precision=_text(part.get("precision")),
                bytes=sum(record["bytes"] for record in part["files"]),
                runtime_version=runtime.version if runtime else None,
                detail=runtime.detail if runtime else {},
                median_ms=measured.part_median_ms.get(index) if measured else None,
                share=measured.part_share.get(index) if measured else None,
            )
        )
    return tuple(records)


def _placement(
    bundle: Bundle,
    parts: Sequence[PartRecord],
    accelerators: Collection[str],
    measured: Measurements | None,
) -> Placement:
    manifest = bundle.manifest
    served = {each.part: each.backend for each in measured.runtimes} if measured else {}
    counts = _mapping(_mapping(manifest.get("predicted")).get("nodes_by_backend"))
    nodes = {str(backend): count for backend, count in counts.items() if _count(count)}
    shares = _mapping(_mapping(manifest.get("predicted")).get("share_by_backend"))
    predicted = tuple(
        PlacementRow(
            backend=backend,
            accelerator=backend in accelerators,
            nodes=count,
            share=_fraction(shares.get(backend)),
            detail="",
        )
        for backend, count in nodes.items()
    )
    as_built = tuple(
        PlacementRow(
            backend=part.backend,
            accelerator=part.backend in accelerators,
            nodes=None,
            share=None,
            detail=_as_built(manifest, part),
        )
        for part in parts
    )
    return Placement(
        predicted=predicted,
        as_built=as_built,
        actual=tuple(_actual(part, served.get(part.index)) for part in parts),
    )


def _as_built(manifest: Mapping[str, Any], part: PartRecord) -> str:
    record = _mapping(manifest.get("as_built"))
    said = [f"part {part.index}: {part.precision or _precision(manifest)} {part.format}"]
    quantized, left = _count(record.get("quantized_nodes")), record.get("left_float")
    if len(manifest["parts"]) == 1 and quantized is not None:
        said.append(f"{quantized} nodes quantized")
    if len(manifest["parts"]) == 1 and isinstance(left, list) and left:
        said.append(f"{len(left)} left in float")
    return ", ".join(said)


def _precision(manifest: Mapping[str, Any]) -> str:
    return str(manifest["precision"])


def _actual(part: PartRecord, served: str | None) -> PlacementRow:
    where: object = None
    for name in ("execution_devices", "providers", "device", "delegate"):
        where = where or part.detail.get(name)
    shown = ", ".join(str(v) for v in where) if isinstance(where, tuple) else where
    version = f"{part.runtime} {part.runtime_version or ''}".strip()
    detail = f"part {part.index}: {version}" + (f" on {shown}" if shown else "")
    assigned = {
        name.removeprefix("assignment."): count
        for name, value in part.detail.items()
        if name.startswith("assignment.") and (count := _count(value))
    }
    if len(assigned) > 1:
        detail += "; " + ", ".join(f"{n} nodes on {name}" for name, n in assigned.items())
    fell_back = part.detail.get("fell_back")
    if isinstance(fell_back, tuple):
        detail += f"; fell back from {'; '.join(map(str, fell_back))}"[:800]
    return PlacementRow(
        backend=served or part.backend,
        accelerator=ran_on_accelerator(part.detail),
        nodes=sum(assigned.values()) or None,
        share=part.share,
        detail=detail,
    )
