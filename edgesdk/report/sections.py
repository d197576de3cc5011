"""The sections of a report page that are made of tables and facts alone."""

from __future__ import annotations

from collections.abc import Sequence

from edgesdk.bench.values import (
    AccuracyResult,
    BenchmarkReport,
    DeploymentRecord,
    PartRecord,
    PlacementRow,
)
from edgesdk.report.origin import origin_facts
from edgesdk.report.page import escaped, facts, section, sentence, table
from edgesdk.report.summary import accuracy_text, bytes_text

__all__ = [
    "accuracy_section",
    "built_section",
    "conditions_section",
    "deployment_section",
    "memory_section",
    "placement_section",
    "repeat_section",
    "subjects_section",
]


def accuracy_section(report: BenchmarkReport) -> str:
    """Show what labelled data and check vectors say of the outputs."""
    accuracy = report.accuracy
    pieces = []
    labelled: list[tuple[str, AccuracyResult | None]] = [
        (report.bundle.precision, accuracy.labelled),
        ("unquantized", accuracy.labelled_reference),
    ]
    if report.baseline is not None:
        labelled.append((report.baseline.bundle.precision, report.baseline.accuracy.labelled))
    rows = [(name, r.metric, accuracy_text(r)) for name, r in labelled if r is not None]
    pieces.append(table("On labelled data", ("", "metric", "value"), rows))
    check = accuracy.host_check
    if check is not None:
        outputs = [
            (
                output.name,
                "same" if output.within else "differs",
                _figure_text(output.max_abs_error),
                _figure_text(output.allowed),
                f"{output.mismatches} of {output.elements}",
            )
            for output in check.outputs
        ]
        caption = f"Device against host, same parts, {check.vectors} check vectors"
        head = ("output", "result", "largest error", "allowed", "outside")
        pieces.append(table(caption, head, outputs, numbers=frozenset({2, 3, 4}), stack=True))
    reference = [
        (
            output.name,
            "not defined" if output.cosine is None else f"{output.cosine:.6f}",
            _figure_text(output.max_abs_error),
            "no classes"
            if output.top1_agreement is None
            else f"{output.top1_agreement:.1%} of {output.rows}",
        )
        for output in accuracy.reference
    ]
    columns = ("output", "lowest cosine", "largest error", "same top-1")
    caption = "Device against the unquantized model, check vectors"
    pieces.append(table(caption, columns, reference, numbers=frozenset({1, 2, 3}), stack=True))
    if not any(pieces):
        pieces = ['<p class="note">Nobody looked at the outputs in this run.</p>']
    return section("Accuracy", *pieces)


def _figure_text(value: float | None) -> str:
    return "not defined" if value is None else f"{value:.4g}"


def built_section(report: BenchmarkReport) -> str:
    """Show what measuring decided while the bundle was built."""
    lines = "".join(f"<li>{escaped(line)}</li>" for line in report.bundle.as_built)
    return section("As built", f'<ul class="notes">{lines}</ul>' if lines else "")


def placement_section(report: BenchmarkReport) -> str:
    """Show predicted, as built and actual placement in one table."""
    placement = report.placement
    stages = (
        ("predicted", placement.predicted),
        ("as built", placement.as_built),
        ("actual", placement.actual),
    )
    rows = [(stage, *_placed(row)) for stage, group in stages for row in group]
    assumed = "".join(f"<li>{escaped(figure)}</li>" for figure in report.target.assumed)
    return section(
        "Placement",
        table(
            "Where the work was meant to run, where the build put it, where it ran",
            ("stage", "backend", "kind", "nodes", "share", "detail"),
            rows,
            numbers=frozenset({3, 4}),
            stack=True,
        ),
        '<p class="note">Rests on figures that nobody has measured:</p>' if assumed else "",
        f'<ul class="notes">{assumed}</ul>' if assumed else "",
    )


def _placed(row: PlacementRow) -> tuple[str, str, str, str, str]:
    kinds = {True: "accelerator", False: "CPU", None: "not told"}
    nodes = "" if row.nodes is None else str(row.nodes)
    share = "" if row.share is None else f"{row.share:.0%}"
    return row.backend, kinds[row.accelerator], nodes, share, row.detail


def conditions_section(report: BenchmarkReport) -> str:
    """Show the circumstances, and what they mean, first."""
    conditions = report.conditions
    notes = "".join(f"<li>{escaped(sentence(note))}</li>" for note in conditions.notes)
    limited = {True: "yes", False: "no", None: "the device does not tell"}
    rows: list[tuple[str, object]] = [
        (name.replace("_", " "), _listed(value))
        for name, value in conditions.static.items()
        if value is not None
    ]
    clocks = [mhz for sample in conditions.samples for mhz in sample.cpu_mhz]
    if clocks:
        rows.append(("clock", _span(clocks, ",.0f", " MHz")))
    for zone in sorted({zone for sample in conditions.samples for zone in sample.temp_c})[:16]:
        degrees = [s.temp_c[zone] for s in conditions.samples if zone in s.temp_c]
        rows.append((f"temperature, {zone}", _span(degrees, ".1f", " °C")))
    loads = [s.load1 for s in conditions.samples if s.load1 is not None]
    if loads:
        rows.append(("load average", _span(loads, ".2f")))
    rows.append(("clock limited", limited[conditions.throttled]))
    return section(
        "Conditions", f'<ul class="notes">{notes}</ul>\n' if notes else "", facts(rows)
    )


def _listed(value: object) -> str:
    shown = value if isinstance(value, tuple) else (value,)
    if len(shown) > 1 and len(set(shown)) == 1:
        return f"{_listed(shown[0])}, {len(shown)} times"
    texts = [f"{v:g}" if isinstance(v, float) else _said(v) for v in shown]
    return ", ".join(texts) or "none"


def _said(value: object) -> str:
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else str(value)


def memory_section(report: BenchmarkReport, plot: str) -> str:
    """Show what the model takes of disk and memory, beside ``plot``, which is markup."""
    base, device = report.baseline, report.device
    peak = None
    if report.peak_rss_bytes is not None:
        peak = f"{bytes_text(report.peak_rss_bytes)}, runtime included"
        if device.ram_bytes:
            share = report.peak_rss_bytes / device.ram_bytes
            peak += f"; {share:.1%} of the device's {bytes_text(device.ram_bytes)}"
    free = [
        sample.mem_available_bytes
        for sample in report.conditions.samples
        if sample.mem_available_bytes is not None
    ]
    rows: list[tuple[str, object]] = [
        ("parts on disk", bytes_text(report.bundle.bytes)),
        ("worker at its peak", peak),
        ("free on the device", f"{bytes_text(min(free))} at the least" if free else None),
    ]
    if base is not None:
        name = base.bundle.precision
        rows.append((f"parts on disk, {name}", bytes_text(base.bundle.bytes)))
        if base.peak_rss_bytes is not None:
            rows.append((f"worker at its peak, {name}", bytes_text(base.peak_rss_bytes)))
    listed = facts(rows)
    if not plot:
        return section("Memory", listed)
    return section("Memory", f'<div class="pair"><div>{plot}</div><div>{listed}</div></div>\n')


def subjects_section(report: BenchmarkReport) -> str:
    """Show what was measured: model, bundle, target, device."""
    model, device, bundle = report.model, report.device, report.bundle
    ports = [
        (title, f"{tensor.name}: {tensor.dtype}[{', '.join(map(str, tensor.shape))}]")
        for title, tensors in (("input", model.inputs), ("output", model.outputs))
        for tensor in tensors[:8]
    ]
    part_rows = [
        (f"part {part.index}", f"{part.runtime} {part.runtime_version or ''} ({part.backend})")
        for part in report.parts[:16]
    ]
    return section(
        "Model, bundle, device",
        facts(
            [
                ("model", model.name),
                ("model file", _joined(model.format, bytes_text(model.bytes))),
                ("model sha256", model.sha256),
                *origin_facts(model.origin),
                *ports,
                ("bundle", bundle.id),
                *part_rows,
                ("target", _joined(report.target.name, report.target.family)),
                ("device", _joined(device.name, device.url)),
                ("board", device.device_tree_model),
                ("processor", _joined(device.cpu_model, device.machine)),
                ("cores", device.cpu_count),
                ("memory", bytes_text(device.ram_bytes) if device.ram_bytes else None),
                ("system", _joined(device.os, device.system, device.kernel)),
                ("agent", _joined(device.agent_version, f"Python {device.python}")),
            ]
        ),
    )


def _runtime(part: PartRecord) -> str:
    return f"{part.runtime} {part.runtime_version or 'of unknown version'}"


def _agent(report: BenchmarkReport) -> str | None:
    version, python = report.device.agent_version, report.device.python
    return None if version is None else f"agent {version} on Python {python or 'unknown'}"


def _joined(*values: str | None) -> str | None:
    kept = list(dict.fromkeys(value for value in values if value))
    return ", ".join(kept) or None


def _deltas(receipt: DeploymentRecord) -> str | None:
    if not receipt.delta_made_bytes:
        return None
    sent, made = bytes_text(receipt.delta_bytes), bytes_text(receipt.delta_made_bytes)
    return f"{sent} instead of {made}"


_OUTCOMES = {
    "active": "active",
    "on-probation": "on probation: should it fail, the device returns to the one before",
    "returned": "taken back by the device itself",
}


def deployment_section(report: BenchmarkReport) -> str:
    """Show the receipt, where there is one."""
    receipt = report.deployment
    if receipt is None:
        return ""
    check = "passed" if receipt.self_check_passed else "failed"
    again = ", from an earlier deployment" if receipt.self_check_reused else ""
    sent = f"{receipt.blobs_sent} blobs, {bytes_text(receipt.bytes_sent)}"
    return section(
        "Deployment",
        facts(
            [
                ("over", _joined(receipt.path, receipt.device_url)),
                ("when", receipt.started),
                ("took", f"{receipt.seconds:.2f} s"),
                ("sent", sent),
                ("as deltas", _deltas(receipt)),
                ("already there", bytes_text(receipt.bytes_skipped)),
                ("self-check", f"{check}{again}"),
                ("slot", receipt.slot),
                ("stands", _OUTCOMES.get(receipt.outcome, receipt.outcome)),
                ("before it", receipt.previous[:12] if receipt.previous else "nothing"),
                ("noise", f"{receipt.noise_bytes} bytes" if receipt.noise_bytes else None),
                *(("not the target", reason) for reason in receipt.target_mismatch),
            ]
        ),
    )


def repeat_section(report: BenchmarkReport) -> str:
    """Show the commands and the settings that make this measurement again."""
    spec = report.spec
    commands = "\n".join(escaped(command, limit=2000) for command in report.repeat)
    least = "at most" if spec.until is None else "at least"
    count = f"{least} {spec.runs}" if spec.runs else "as many as fit"
    limit = "none" if spec.duration_s is None else f"{spec.duration_s:g} s"
    return section(
        "How to repeat this",
        f"<pre><code>{commands}</code></pre>\n" if commands else "",
        facts(
            [
                ("counted runs", count),
                ("time limit", limit),
                ("warm-up runs", spec.warmup_runs),
                ("threads", spec.threads or "as the bundle says"),
                ("cores", None if spec.cpus is None else ", ".join(map(str, spec.cpus))),
                ("until", None if spec.until is None else f"± {spec.until:.2%} of the median"),
                ("scenario", spec.scenario),
                ("seed", spec.seed or None),
                ("worker", "started anew" if spec.fresh else "the one that was there"),
                ("bundle", report.bundle.id),
                ("model sha256", report.model.sha256),
                ("runtimes", _joined(*(_runtime(part) for part in report.parts))),
                ("edgesdk", _joined(report.edgesdk, _agent(report))),
                ("measured from", report.started),
                ("measured for", None if report.wall_s is None else f"{report.wall_s:.2f} s"),
            ]
        ),
    )


def _span(values: Sequence[float], digits: str, unit: str = "") -> str:
    """Show the least and the greatest value, or the one that both are shown as."""
    lowest, highest = (format(end, digits) for end in (min(values), max(values)))
    return f"{lowest}{unit}" if lowest == highest else f"{lowest} to {highest}{unit}"
