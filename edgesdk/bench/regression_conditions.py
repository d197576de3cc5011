"""In what the circumstances of two measurements differ, and whether that forbids comparing."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence

from edgesdk.bench.history_values import CONDITION_NAMES, condition_facts
from edgesdk.bench.regression_values import Difference
from edgesdk.bench.values import BenchmarkReport
from edgesdk.errors import InputError
from edgesdk.near import suggest

__all__ = [
    "ALLOWABLE",
    "check_allowed",
    "find_differences",
    "require_comparable",
    "require_whole",
]

#: Differences across which times are compared only where somebody allows it.
ALLOWABLE: tuple[str, ...] = tuple(
    dict.fromkeys(
        (
            "model",
            "target",
            "device",
            "processor",
            "cores",
            *(name.replace("_", "-") for name in CONDITION_NAMES),
        )
    )
)
_STATIC = ("max_mhz", "turbo", "cpus_allowed")
_MAX_TEXT = 200


def check_allowed(names: Sequence[str]) -> frozenset[str]:
    """Give the names of differences that are allowed, if they all are such names.

    Raises:
        InputError: One is not.
    """
    for name in names:
        if name not in ALLOWABLE:
            raise InputError(
                f"cannot allow a difference in {name[:80]!r}: there is no such circumstance",
                hint=suggest(name, ALLOWABLE) or f"circumstances are {', '.join(ALLOWABLE)}",
                allow=name[:80],
            )
    return frozenset(names)


def require_whole(report: BenchmarkReport, *, called: str) -> None:
    """Refuse a measurement that broke off: what came through may be a selection.

    Raises:
        InputError: It did.
    """
    broke = "" if report.procedure is None else report.procedure.incomplete
    if broke:
        raise InputError(
            f"cannot compare {called}: it broke off: {broke[:_MAX_TEXT]}",
            hint="measure again: what had arrived until then may be a selection",
            called=called,
        )


def find_differences(ours: BenchmarkReport, theirs: BenchmarkReport) -> tuple[Difference, ...]:
    """Name what differs, what decides first. What one of the two does not tell is left out."""
    told = dict(_decisive(theirs))
    found = [
        Difference(name=name, ours=_shown(a), theirs=_shown(told[name]), decisive=True)
        for name, a in _decisive(ours)
        if name in told and a != told[name]
    ]
    told = dict(_telling(theirs))
    found += [
        Difference(name=name, ours=_shown(a), theirs=_shown(told[name]), decisive=False)
        for name, a in _telling(ours)
        if name in told and a != told[name]
    ]
    return tuple(found)


def require_comparable(
    differences: Sequence[Difference], *, allowed: Collection[str] = ()
) -> None:
    """Refuse to compare across a difference that decides, unless it is allowed.

    Raises:
        InputError: There is one; the message names all of them.
    """
    wrong = [each for each in differences if each.decisive and each.name not in allowed]
    if wrong:
        named = "; ".join(f"{d.name} is {d.ours}, was {d.theirs}" for d in wrong)
        raise InputError(
            f"cannot compare the two measurements: {named}",
            hint="measure both alike, name another reference, or allow it: "
            + " ".join(f"--allow {each.name}" for each in wrong),
            differences=[each.name for each in wrong],
        )


def _decisive(report: BenchmarkReport) -> Iterator[tuple[str, object]]:
    device = report.device
    yield "model", report.model.name
    yield "target", report.target.name
    yield "device", device.name
    processor = device.device_tree_model or device.cpu_model or device.machine
    if processor is not None:
        yield "processor", processor
    if device.cpu_count is not None:
        yield "cores", device.cpu_count
    for name, value in condition_facts(report).items():
        if name == "emulated":
            yield name, value or "no"
        elif name != "governor" or value is not None:  # without one, nobody knows
            yield name.replace("_", "-"), value


def _telling(report: BenchmarkReport) -> Iterator[tuple[str, object]]:
    """Give what may explain a change, or be the change that is to be measured."""
    yield "precision", report.bundle.precision
    runtimes = sorted(
        {f"{part.runtime} {part.runtime_version}" for part in report.parts
         if part.runtime_version is not None}
    )  # fmt: skip
    if runtimes:
        yield "runtimes", ", ".join(runtimes)
    static = report.conditions.static
    told: dict[str, object] = {
        "kernel": report.device.kernel,
        "system": report.device.os,
        "agent": report.device.agent_version,
        "throttled": report.conditions.throttled,
        **{name.replace("_", " "): static.get(name) for name in _STATIC},
    }
    yield from ((name, value) for name, value in told.items() if value is not None)


def _shown(value: object) -> str:
    if value is None:
        return "the default"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, tuple):
        value = ", ".join(map(str, dict.fromkeys(value)))
    text = "".join(c if c.isprintable() else " " for c in str(value))
    return text[:_MAX_TEXT] or "nothing"
