"""What `edgesdk deploy` shows in the end."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from edgesdk.cli.deltas import delta_text
from edgesdk.cli.devicelink import probation_text, short_id
from edgesdk.cli.output import Output, size_text
from edgesdk.cli.progress import busy
from edgesdk.cli.report import show_outcome
from edgesdk.cli.runfolder import write_receipt

if TYPE_CHECKING:
    from edgesdk.bench.values import BenchmarkReport
    from edgesdk.cli.deployjob import Job
    from edgesdk.deploy.values import Deployment
    from edgesdk.devices.inventory import Device

__all__ = ["keep_results", "show_deployment"]


def show_deployment(
    out: Output,
    job: Job,
    device: Device,
    deployment: Deployment,
    report: BenchmarkReport | None,
) -> None:
    """Say where the release is, how it stands, and what was measured."""
    where = "was taken back by" if deployment.outcome == "returned" else "is current on"
    out.line(
        f"{job.bundle.name} {job.bundle.precision} {where} {device.name} "
        f"(bundle {short_id(job.bundle.id)}, {deployment.seconds:.1f} s)\n"
    )
    if report is not None:
        page = None if job.folder is None else job.folder / "report.html"
        show_outcome(out, report, [*_receipt_rows(device, deployment), ("report", page)])
        return
    checks = f"{len(job.bundle.manifest['checks'])} check vectors passed"
    if deployment.self_check.reused:
        checks += " when it was deployed before"
    rows = [("checked", checks), *_receipt_rows(device, deployment), ("folder", job.folder)]
    out.pairs(rows)


def keep_results(job: Job, deployment: Deployment, report: BenchmarkReport | None) -> None:
    """Leave receipt and report in the run folder, where there is one."""
    if job.folder is None:
        return
    write_receipt(job.folder, deployment.to_json())
    if report is not None:
        from edgesdk.report.files import write_report

        with busy("draw the report"):
            write_report(report, job.folder)


def _receipt_rows(device: Device, deployment: Deployment) -> list[tuple[str, object]]:
    sent = f"{deployment.blobs_sent} blobs, {size_text(deployment.bytes_sent)}"
    if deployment.bytes_skipped:
        sent += f"; {size_text(deployment.bytes_skipped)} were there already"
    previous = "nothing"
    if deployment.previous:
        undo = f"edgesdk rollback {shlex.quote(device.name)}"
        previous = f"{short_id(deployment.previous)}; `{undo}` goes back to it"
    return [
        ("mismatch", "; ".join(deployment.target_mismatch) or None),
        ("note", "; ".join(deployment.notes) or None),
        ("sent", sent),
        ("delta", delta_text(deployment)),
        ("signed by", deployment.signer),
        ("probation", probation_text(deployment.probation, device.name)),
        ("previous", previous),
    ]
