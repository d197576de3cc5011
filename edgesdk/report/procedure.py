"""How a measurement went, in a few lines for a terminal, Markdown or a web page."""

from __future__ import annotations

from edgesdk.bench.procedure_values import Around, Procedure
from edgesdk.bench.spec_values import SCENARIOS, BenchSpec
from edgesdk.bench.values import BenchmarkReport
from edgesdk.report.summary import Row, clean, ms_text

__all__ = ["procedure_rows"]


def procedure_rows(report: BenchmarkReport) -> tuple[Row, ...]:
    """Give what the runs were like, why they ended, and what an inference is made up of."""
    procedure, spec = report.procedure, report.spec
    if procedure is None:
        return ()
    rows = [("measured", procedure.why)]
    if spec.scenario != "single-stream" or spec.batch > 1:
        rows.append(("scenario", _scenario(spec, procedure)))
    if procedure.around is not None:
        rows.append(("made up of", _around(procedure.around)))
    if procedure.energy_per_inference_mj is not None:
        energy = f"{procedure.energy_per_inference_mj:.4g} mJ per inference"
        rows.append(("energy", f"{energy} {procedure.energy_why}"))
    else:
        rows.append(("energy", f"not known: {procedure.energy_why}"))
    return tuple(Row(label=label, value=clean(value)) for label, value in rows)


def _scenario(spec: BenchSpec, procedure: Procedure) -> str:
    said = [f"{spec.scenario} ({SCENARIOS[spec.scenario]})"]
    if spec.streams > 1:
        said.append(f"{spec.streams} streams")
    if spec.batch > 1:
        way = "in one call" if procedure.one_call else "call after call"
        said.append(f"batches of {spec.batch} {way}")
    if procedure.per_s is not None:
        said.append(f"{procedure.per_s:,.4g} inferences/s")
    served = procedure.served
    if served is not None and spec.rate_per_s is not None:
        said.append(f"{spec.rate_per_s:g} arrivals/s asked for")
        if served.service_ms is not None:
            said.append(f"{ms_text(served.service_ms)} without waiting")
    return ", ".join(said)


def _around(around: Around) -> str:
    parts = (
        ("the runtime's calls", around.calls_ms),
        ("input", around.in_ms),
        ("between parts", around.between_ms),
        ("output", around.out_ms),
        ("link and agent", around.link_ms),
    )
    known = [f"{name} {ms_text(ms)}" for name, ms in parts if ms]
    return ", ".join(known) or "not known"
