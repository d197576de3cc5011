"""What `edgesdk deploy` shows in the end, and leaves in the folder of the run."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from edgesdk.cli.deltas import delta_text
from edgesdk.cli.devicelink import probation_text, short_id
from edgesdk.cli.output import Output, size_text
from edgesdk.cli.progress import busy
from edgesdk.cli.report import show_outcome
from edgesdk.cli.runfolder import write_receipt
from edgesdk.errors import FindingsError

if TYPE_CHECKING:
    from edgesdk.bench.values import BenchmarkReport
    from edgesdk.cli.deployjob import Job
    from edgesdk.deploy.values import Deployment
    from edgesdk.devices.inventory import Device

__all__ = ["keep_deployment", "refused_with_report", "show_deployment"]


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
        more = [*_origin_rows(job), *_receipt_rows(device, deployment), ("report", page)]
        show_outcome(out, report, more)
        return
    checks = f"{len(job.bundle.manifest['checks'])} check vectors passed"
    if deployment.self_check.reused:
        checks += " when it was deployed before"
    receipt = _receipt_rows(device, deployment)
    out.pairs([("checked", checks), *_origin_rows(job), *receipt, ("folder", job.folder)])


def _origin_rows(job: Job) -> list[tuple[str, object]]:
    """Say what the model was imported from and how well that went, where it was."""
    from edgesdk.bench.origin_values import read_origin
    from edgesdk.report.origin import origin_text

    record = job.bundle.manifest["model"].get("origin")
    origin = read_origin(record) if isinstance(record, dict) else None
    return [] if origin is None else [("imported", f"from {origin_text(origin)}")]


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


def refused_with_report(
    exc: FindingsError, out: Output, job: Job, report: BenchmarkReport
) -> FindingsError:
    """Leave the report of a release that was refused, and name it in the error."""
    from edgesdk.report.files import write_report

    assert job.folder is not None
    with busy("draw the report"):
        written = write_report(report, job.folder)
    show_outcome(out, report, [("report", written.html)])
    return FindingsError(str(exc), hint=exc.hint, **exc.facts, report=str(written.json))


def keep_deployment(job: Job, deployment: Deployment, report: BenchmarkReport | None) -> None:
    """Write the receipt and the report into the folder of the run, where it has one."""
    if job.folder is None:
        return
    write_receipt(job.folder, deployment.to_json())
    if report is not None:
        from edgesdk.report.files import write_report

        with busy("draw the report"):
            write_report(report, job.folder)
