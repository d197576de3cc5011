"""How the numbers of a page came about: trust, procedure, energy, other releases."""

from __future__ import annotations

from collections.abc import Sequence

from edgesdk.bench.compare_values import Comparison
from edgesdk.bench.procedure_values import STOPPED, Around, Energy, Procedure, WarmUp
from edgesdk.bench.spec_values import SCENARIOS
from edgesdk.bench.trust_values import GRADES, Grade
from edgesdk.bench.values import BenchmarkReport
from edgesdk.report.drawing import plots_available
from edgesdk.report.page import escaped, facts, figure, section, sentence, table
from edgesdk.report.paired import blocks_plot
from edgesdk.report.summary import ms_text

__all__ = [
    "comparison_section",
    "energy_tile",
    "procedure_section",
    "runs_text",
    "trust_note",
]

_MOODS: dict[Grade, str] = {"A": "good", "B": "good", "C": "fair", "D": "bad"}


def trust_note(report: BenchmarkReport) -> str:
    """Give the grade with every reason in a box; before it, what broke the measurement off."""
    broken = "" if report.procedure is None else report.procedure.incomplete
    box = ""
    if broken:
        box = (
            '<div class="verdict bad" role="note" aria-label="Incomplete">'
            f"<strong>Incomplete</strong><p>{escaped(sentence(broken))} "
            "What had arrived by then is shown; it may be a selection.</p></div>\n"
        )
    trust = report.trust
    if trust is None:
        return box
    reasons = "".join(
        f"<li>{escaped(reason.about)}, {escaped(reason.weight)}: {escaped(reason.text)}</li>"
        for reason in trust.reasons
    )
    return box + (
        f'<div class="verdict {_MOODS[trust.grade]}" role="note" aria-label="Trust">'
        f"<strong>Trust {trust.grade}</strong>"
        f"<p>{escaped(sentence(GRADES[trust.grade]))}</p>"
        f"{f'<ul>{reasons}</ul>' if reasons else ''}</div>\n"
    )


def energy_tile(report: BenchmarkReport) -> tuple[str, str, str] | None:
    """Give the energy of an inference as title, value and remark; None without a sensor."""
    procedure = report.procedure
    if procedure is None or procedure.energy_per_inference_mj is None:
        return None
    return "energy", _mj(procedure.energy_per_inference_mj), "an inference"


def runs_text(report: BenchmarkReport) -> str:
    """Say how many runs there were and of what kind."""
    spec, procedure = report.spec, report.procedure
    count = len(report.latency.samples_ms)
    warm = spec.warmup_runs
    if procedure is not None and procedure.warm_up is not None:
        warm = procedure.warm_up.runs
    kind = "one after the other"
    if spec.scenario != "single-stream" or spec.batch > 1:
        kind = f"{spec.scenario}, {spec.streams} at a time, {spec.batch} inferences each"
    return f"{count:,} runs, {kind}, after {warm:,} to warm up"


def procedure_section(report: BenchmarkReport) -> str:
    """Show how the counted runs came about, what surrounds them, and what they cost."""
    procedure = report.procedure
    if procedure is None:
        return ""
    spec = report.spec
    warm = procedure.warm_up
    scenario = f"{spec.scenario}: {SCENARIOS[spec.scenario]}"
    rows: list[tuple[str, object]] = [
        ("scenario", scenario),
        ("streams", spec.streams if spec.streams > 1 else None),
        ("batch", _batch(spec.batch, one_call=procedure.one_call)),
        ("arrivals", None if spec.rate_per_s is None else f"{spec.rate_per_s:g}/s on average"),
        ("ended by", procedure.why or STOPPED[procedure.stopped]),
        (
            "median known to",
            None if procedure.half_width is None else f"± {100 * procedure.half_width:.2g} %",
        ),
        ("warm-up", None if warm is None else _warm_up(warm)),
        ("inferences", f"{procedure.inferences:,}"),
        ("per second", None if procedure.per_s is None else f"{procedure.per_s:,.4g}"),
        ("runs by stream", ", ".join(map(str, procedure.runs_by_stream[:16])) or None),
        *_served(procedure),
        (
            "load of others",
            None if procedure.others_cpu is None else f"{procedure.others_cpu:.2f} cores",
        ),
        (
            "cost of sampling",
            None
            if procedure.sampling_cpu is None
            else f"{procedure.sampling_cpu:.2%} of a core",
        ),
        ("clock went back", procedure.clock_went_back or None),
        ("odd outputs", _odd(procedure.odd_outputs)),
        ("energy", _whole_energy(procedure)),
    ]
    around = procedure.around
    return section(
        "How it was measured",
        facts(rows),
        "" if around is None else _around_table(around),
        _energy_table(procedure.energy),
    )


def _warm_up(warm: WarmUp) -> str:
    settled = {True: ", settled", False: ", did not settle", None: ""}
    how = f": {warm.how}" if warm.how else ""
    return f"{warm.runs:,} runs in {warm.seconds:.2f} s{settled[warm.settled]}{how}"


def _batch(batch: int, *, one_call: bool | None) -> str | None:
    if batch == 1:
        return None
    how = {True: "in one call of the runtime", False: "one call after the other", None: ""}
    return f"{batch} inferences {how[one_call]}".rstrip()


def _served(procedure: Procedure) -> list[tuple[str, object]]:
    served = procedure.served
    if served is None:
        return []
    rates = [
        f"{rate:.4g}/s {word}"
        for rate, word in ((served.arrived_per_s, "arrived"), (served.done_per_s, "done"))
        if rate is not None
    ]
    return [
        ("served", ", ".join(rates) or None),
        ("service alone", None if served.service_ms is None else ms_text(served.service_ms)),
        ("waiting at the end", served.waiting_at_end),
    ]


def _odd(outputs: dict[str, int]) -> str | None:
    odd = [f"{name}: {count} NaN or infinite" for name, count in outputs.items() if count]
    return ", ".join(odd) or None


def _whole_energy(procedure: Procedure) -> str:
    if procedure.energy_per_inference_mj is None:
        return procedure.energy_why or "no sensor"
    return f"{_mj(procedure.energy_per_inference_mj)} an inference ({procedure.energy_why})"


def _mj(value: float) -> str:
    return f"{value:.3g} mJ" if value < 1000 else f"{value / 1000:.3g} J"


def _around_table(around: Around) -> str:
    rows = [
        (title, ms_text(value))
        for title, value in (
            ("hand-over in", around.in_ms),
            ("the runtimes' own calls", around.calls_ms),
            ("from part to part", around.between_ms),
            ("hand-over out", around.out_ms),
            ("link, agent and framing", around.link_ms),
        )
        if value is not None
    ]
    caption = f"What one inference is made up of: medians of {around.runs} runs of their own"
    why = f'<p class="note">{escaped(sentence(around.why))}</p>\n' if around.why else ""
    return table(caption, ("", "median"), rows, numbers=frozenset({1})) + why


def _energy_table(energy: Sequence[Energy]) -> str:
    kinds = {"counter": "counter of energy", "sampled": "sensor of power"}
    rows = [
        (
            each.sensor,
            kinds[each.kind],
            f"{each.joules:.3g} J",
            "not known" if each.mean_w is None else f"{each.mean_w:.3g} W",
            "not known" if each.per_inference_mj is None else _mj(each.per_inference_mj),
        )
        for each in energy
    ]
    head = ("sensor", "kind", "in all", "mean", "an inference")
    return table(
        "Energy during the counted runs", head, rows, numbers=frozenset({2, 3, 4}), stack=True
    )


def comparison_section(report: BenchmarkReport, index: int) -> str:
    """Show the releases that this one was measured in turns with."""
    if not report.comparisons:
        return ""
    pieces = []
    for place, each in enumerate(report.comparisons):
        plot = ""
        if plots_available():
            plot = figure(
                f"Against {each.theirs[:12]}",
                blocks_plot(each, f"r{index}-{place}"),
                says=f"ratios of {len(each.blocks)} pairs of blocks against "
                f"{each.theirs[:12]}, with the interval; the table holds the numbers",
            )
        pieces.append(f'<div class="pair">{plot}<div>{_compared(each)}</div></div>\n')
    return section("Other releases, in turns", *pieces)


def _compared(each: Comparison) -> str:
    p_value = each.p_value if each.adjusted_p is None else each.adjusted_p
    notes = "".join(f"<li>{escaped(sentence(note))}</li>" for note in each.notes)
    listed = facts(
        [
            ("outcome", each.text),
            ("p-value", f"{p_value:.3g}" + ("" if each.adjusted_p is None else ", Holm's")),
            ("release", each.theirs),
            ("blocks", f"{len(each.blocks)} pairs in {each.starts} starts, {each.mode}"),
            ("order drawn with", f"seed {each.seed}"),
            ("took", f"{each.seconds:.1f} s"),
        ]
    )
    return listed + (f'<ul class="notes">{notes}</ul>\n' if notes else "")
