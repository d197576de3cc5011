"""``edgesdk bench --compare``: the release that is measured against others, in turns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer

from edgesdk.cli.devicelink import find_release, short_id
from edgesdk.cli.progress import progress_bars
from edgesdk.errors import InputError

if TYPE_CHECKING:
    from edgesdk.bench.compare_values import Comparison
    from edgesdk.bench.values import BenchSpec
    from edgesdk.deploy.releases import Release
    from edgesdk.devices.session import Session

__all__ = [
    "CompareOption",
    "CompareSecondsOption",
    "CompareSeedOption",
    "check_compare",
    "compare_documents",
    "compare_releases",
    "find_others",
]

CompareOption = Annotated[
    list[str] | None,
    typer.Option(
        "--compare",
        metavar="RELEASE",
        help="Also measure in turns with this release (previous, candidate, or a bundle's id): "
        "short blocks of each in an order that is drawn. May be repeated.",
    ),
]
CompareSecondsOption = Annotated[
    float | None,
    typer.Option(
        "--compare-seconds",
        metavar="SECONDS",
        help="How long each comparison takes, loading included. Default: 10.",
    ),
]
CompareSeedOption = Annotated[
    int | None,
    typer.Option(
        "--compare-seed",
        min=0,
        max=2**32 - 1,
        metavar="N",
        help="Draws the order of the blocks. Default: one that the report names.",
    ),
]
_MOST_SECONDS = 86_400.0
_MOST = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class _Held:
    """A bundle that the device holds, of which nothing but its id has to be known here."""

    id: str


def check_compare(
    others: Sequence[str] | None, seconds: float | None, seed: int | None
) -> tuple[str, ...]:
    """Check the options before anything is connected; give the releases to compare with.

    Raises:
        InputError: They do not go together, or the time is none.
    """
    if not others:
        given = {"--compare-seconds": seconds, "--compare-seed": seed}
        alone = [name for name, value in given.items() if value is not None]
        if alone:
            raise InputError(
                f"cannot use {alone[0]} alone: there is nothing to compare with",
                hint="name a release, as in --compare previous",
            )
        return ()
    if len(others) > _MOST:
        raise InputError(
            f"cannot compare with {len(others)} releases (at most {_MOST})",
            hint="leave some out: the more there are, the less each comparison can show",
        )
    if seconds is not None and not 1.0 <= seconds <= _MOST_SECONDS:
        raise InputError(
            f"cannot compare for {seconds:g} s (expected 1 to {_MOST_SECONDS:g})",
            hint="leave out --compare-seconds for 10 s",
            seconds=seconds,
        )
    return tuple(others)


def find_others(session: Session, chosen: Release, wanted: Sequence[str]) -> tuple[str, ...]:
    """Give the ids of the bundles to compare with, each once.

    Raises:
        InputError: The device does not hold one, or it is the one that is measured.
    """
    found: dict[str, str] = {}
    for each in wanted:
        other = find_release(session, each).bundle
        if other == chosen.bundle:
            raise InputError(
                f"cannot compare {short_id(other)} with itself: {each} is the release that is "
                "measured",
                hint="`edgesdk releases` shows which bundles the device holds",
                release=each,
            )
        if other in found:
            raise InputError(
                f"cannot compare with {short_id(other)} twice: {each} and {found[other]} are "
                "the same bundle",
                hint="leave one of them out",
                release=each,
            )
        found[other] = each
    return tuple(found)


def compare_releases(
    session: Session,
    bundle: str,
    others: Sequence[str],
    *,
    spec: BenchSpec,
    seconds: float | None,
    seed: int | None,
) -> tuple[Comparison, ...]:
    """Measure a bundle in turns with others; all are on the device."""
    from edgesdk.bench.compare import SECONDS, compare_with_several

    with progress_bars() as on_progress:
        return compare_with_several(
            session,
            _Held(id=bundle),
            [_Held(id=other) for other in others],
            spec=spec,
            seconds=SECONDS if seconds is None else seconds,
            seed=seed,
            on_progress=on_progress,
        )


def compare_documents(comparisons: Sequence[Comparison]) -> list[dict[str, object]]:
    """Give what follows from each comparison, for the machine-readable output."""
    return [
        {
            "theirs": each.theirs,
            "verdict": each.verdict,
            "at_least": each.at_least,
            "ratio": each.ratio,
            "lower": each.lower,
            "upper": each.upper,
            "p_value": each.p_value,
            "adjusted_p": each.adjusted_p,
            "seed": each.seed,
            "text": each.text,
        }
        for each in comparisons
    ]
