"""Render reports as JUnit XML for build servers: one suite a report, one case a promise.

A case fails where the report says that a promise was not kept: outputs as on the host, work
where it was planned. What nobody looked at is skipped, so that silence is no success.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from xml.etree import ElementTree as ET

from edgesdk.bench.values import VERDICTS, BenchmarkReport
from edgesdk.report.summary import clean

__all__ = ["render_junit"]

_BAD = ("accuracy-suspect", "fell-back-to-cpu")
#: No failure of the verdict, but a promise that was not kept.
_PARTLY = "partly-fell-back"
#: A case: its name, its time in seconds, what failed, why it was skipped.
_Case = tuple[str, float | None, tuple[str, ...], str]


def render_junit(reports: Sequence[BenchmarkReport]) -> str:
    """Give a whole document; characters that XML cannot hold are left out."""
    root = ET.Element("testsuites", name="edgesdk")
    for report in reports:
        cases = list(_cases(report))
        suite = ET.SubElement(
            root,
            "testsuite",
            name=clean(
                f"{report.model.name} {report.bundle.precision} on {report.device.name}"
            ),
            timestamp=report.created.removesuffix("Z").removesuffix("+00:00"),
            tests=str(len(cases)),
            failures=str(sum(bool(failed) for _, _, failed, _ in cases)),
            skipped=str(sum(bool(skipped) for _, _, _, skipped in cases)),
            errors="0",
        )
        for name, seconds, failed, skipped in cases:
            case = ET.SubElement(suite, "testcase", name=name, classname=_class_name(report))
            if seconds is not None:
                case.set("time", f"{seconds:.6f}")
            if failed:
                failure = ET.SubElement(case, "failure", message=clean(failed[0]))
                failure.text = "\n".join(map(clean, failed))
            elif skipped:
                ET.SubElement(case, "skipped", message=clean(skipped))
    ET.indent(root)
    return f'<?xml version="1.0" encoding="utf-8"?>\n{ET.tostring(root, encoding="unicode")}\n'


def _class_name(report: BenchmarkReport) -> str:
    return clean(f"edgesdk.{report.target.name}.{report.model.name}")


def _cases(report: BenchmarkReport) -> Iterator[_Case]:
    p50 = report.latency.p50_ms
    reasons = (VERDICTS[report.verdict], *report.verdict_reasons)
    unmeasured = "" if report.latency.samples_ms else "no latency sample was taken"
    yield (
        "verdict",
        None if p50 is None else p50 / 1000,
        reasons if report.verdict in _BAD else (),
        unmeasured,
    )
    check = report.accuracy.host_check
    wrong: tuple[str, ...] = ()
    if check is not None and not check.passed:
        wrong = tuple(f"{out.name} differs from the host's" for out in check.outputs
                      if not out.within) or ("outputs differ from the host's",)  # fmt: skip
    yield "outputs as on the host", None, wrong, "" if check else "nobody looked"
    offload = report.offload
    partly = reasons if report.verdict == _PARTLY else ()
    if offload is None or offload.why is not None:
        said = "nobody asked" if offload is None else offload.why or ""
        yield "ran where planned", None, partly, said
        return
    untold = [f"part {part.index}: {part.why}" for part in offload.parts if part.why]
    silent = sum(op.count for op in offload.ops if op.accelerator is None)
    if silent:
        untold.append(f"{silent} ops do not tell where they ran")
    elif not any(op.agrees for op in offload.ops):
        untold.append("no op is known to have run where it was planned")
    failed = offload.disagreements or partly
    yield "ran where planned", None, failed, untold[0] if untold else ""
