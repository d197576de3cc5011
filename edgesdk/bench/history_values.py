"""What the history keeps of a measurement: who, where, when, how fast, and the whole report.

A run is known by the hash of what makes it that measurement and no other: when it was made, on
which device, of which bundle, and every sample. The same report that is recorded twice, or
comes back from an export, is the same run, whatever version of edgesdk writes it.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields

from edgesdk.bench.values import BenchmarkReport, BenchSpec
from edgesdk.errors import HistoryError

__all__ = [
    "CONDITION_NAMES",
    "MAX_LABELS",
    "HistoryRun",
    "Provenance",
    "check_label",
    "condition_facts",
    "describe_run",
    "run_id",
]

#: What a label may be called: a word, or a branch's name.
_LABEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/+@-]{0,99}")
_HEX = re.compile(r"[0-9a-f]{12,}")
#: Of a spec, what says how long to measure; the rest says what is measured.
_HOW_LONG = frozenset(
    {
        "warmup_runs",
        "runs",
        "duration_s",
        "fresh",
        "sample_conditions",
        "settle",
        "until",
        "patience_s",
        "seed",
    }
)
_ASKED = tuple(each.name for each in fields(BenchSpec) if each.name not in _HOW_LONG)
#: The names of what decides whether times can be compared, beside who was measured.
CONDITION_NAMES = ("emulated", "governor", *_ASKED)
#: No run has more labels.
MAX_LABELS = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class Provenance:
    """Which state of the user's own work was measured, where the working folder tells."""

    branch: str | None = None
    commit: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class HistoryRun:
    """One recorded measurement, without its samples. Times are milliseconds.

    ``conditions`` are the circumstances that decide whether two runs can be compared, in a
    canonical form; ``folder`` is where the bundle lay on this computer, which no export tells;
    ``before`` is the run before this one that has all of model, target, device,
    precision and conditions in common.
    """

    id: str
    created: str
    model: str
    target: str
    device: str
    bundle: str
    precision: str
    conditions: str
    verdict: str
    samples: int
    p50_ms: float | None = None
    lower_ms: float | None = None
    upper_ms: float | None = None
    peak_rss_bytes: int | None = None
    trust: str | None = None
    provenance: Provenance = field(default_factory=Provenance)
    folder: str | None = None
    labels: tuple[str, ...] = ()
    before: HistoryRun | None = None

    @property
    def change(self) -> float | None:
        """By what share the median is above that of the run before; None if unknown."""
        if self.before is None or self.p50_ms is None or not self.before.p50_ms:
            return None
        return self.p50_ms / self.before.p50_ms - 1.0

    @property
    def changed(self) -> bool | None:
        """Whether the intervals of the two medians do not overlap; None if unknown."""
        before = self.before
        if before is None or self.lower_ms is None or self.upper_ms is None:
            return None
        if before.lower_ms is None or before.upper_ms is None:
            return None
        return self.lower_ms > before.upper_ms or self.upper_ms < before.lower_ms


def run_id(report: BenchmarkReport) -> str:
    """Name a measurement: 64 hexadecimal digits."""
    what = [
        report.created,
        report.started,
        report.device.name,
        report.target.name,
        report.bundle.id,
        list(report.latency.samples_ms),
    ]
    text = json.dumps(what, ensure_ascii=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode("ascii")).hexdigest()


def condition_facts(report: BenchmarkReport) -> Mapping[str, object]:
    """Give what of the circumstances decides whether times can be compared, by name."""
    static = report.conditions.static
    facts = {"emulated": static.get("emulated"), "governor": static.get("governor")}
    return facts | {name: getattr(report.spec, name) for name in _ASKED}


def _conditions(report: BenchmarkReport) -> str:
    """Give these facts in a canonical form that stays when a later spec can ask for more."""
    usual = BenchSpec()
    facts = {
        name: value
        for name, value in condition_facts(report).items()
        if value is not None and value != getattr(usual, name, None)
    }
    return json.dumps(facts, sort_keys=True, separators=(",", ":"))


def describe_run(
    report: BenchmarkReport,
    *,
    provenance: Provenance | None = None,
    labels: Sequence[str] = (),
    folder: str | None = None,
) -> HistoryRun:
    """Take from a report what the history lists.

    Args:
        report: What was measured.
        provenance: Where the user's work stood.
        labels: What to call the run.
        folder: Where the bundle lies on this computer.

    Raises:
        HistoryError: A label cannot be one.
    """
    interval = report.latency.intervals.get("p50_ms")
    return HistoryRun(
        id=run_id(report),
        created=report.created,
        model=report.model.name,
        target=report.target.name,
        device=report.device.name,
        bundle=report.bundle.id,
        precision=report.bundle.precision,
        conditions=_conditions(report),
        verdict=report.verdict,
        samples=len(report.latency.samples_ms),
        p50_ms=report.latency.p50_ms,
        lower_ms=None if interval is None else interval.lower_ms,
        upper_ms=None if interval is None else interval.upper_ms,
        peak_rss_bytes=report.peak_rss_bytes,
        trust=None if report.trust is None else report.trust.grade,
        provenance=provenance or Provenance(),
        folder=folder,
        labels=tuple(sorted({check_label(label) for label in labels})),
    )


def check_label(label: str) -> str:
    """Give ``label`` back if a run may be called that.

    Raises:
        HistoryError: It is no label, or could be taken for the id of a run.
    """
    if not _LABEL.fullmatch(label) or label.endswith(".json"):
        raise HistoryError(
            f"cannot use label {label[:100]!r}: not one word of at most 100 letters, digits "
            "and ._/+@- that begins with a letter or digit",
            hint="a branch, a version or a purpose makes a good label: main, v1.2, pruned",
            label=label[:100],
        )
    if _HEX.fullmatch(label):
        raise HistoryError(
            f"cannot use label {label[:100]!r}: it looks like the id of a run",
            hint="put a word before it, as in commit-3f8a61d2c07b",
            label=label[:100],
        )
    return label
