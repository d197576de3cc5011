"""How far a report's figures can be trusted, and what it was compared with, in a few lines."""

from __future__ import annotations

from edgesdk.bench.trust_values import GRADES
from edgesdk.bench.values import BenchmarkReport

__all__ = ["comparison_rows", "trust_rows"]

#: What the notes on the conditions tell in full.
_IN_NOTES = frozenset(
    (
        *("emulation", "throttling", "clock", "temperature", "load"),
        *("broken off", "unknown conditions"),
    )
)


def trust_rows(report: BenchmarkReport) -> list[tuple[str, str]]:
    """Give the grade with what it rests on, and a line for each doubt about the samples."""
    trust = report.trust
    if trust is None:
        return []
    about = ", ".join(dict.fromkeys(reason.about for reason in trust.reasons))
    grade = f"{trust.grade}: {GRADES[trust.grade]}" + (f" ({about})" if about else "")
    doubts = [reason.text for reason in trust.reasons if reason.about not in _IN_NOTES]
    return [("trust", grade), *(("doubt", text) for text in doubts)]


def comparison_rows(report: BenchmarkReport) -> list[tuple[str, str]]:
    """Give a line for each release that ours was measured in turns with."""
    rows = []
    for each in report.comparisons:
        rows.append((f"against {each.theirs[:12]}", f"{each.text}, seed {each.seed}"))
        rows += [("doubt", note) for note in each.notes]
    return rows
