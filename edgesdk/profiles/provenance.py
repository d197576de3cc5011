"""Where figures come from: spreading what a file says about its sources over its figures."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING

from edgesdk.errors import ProfileError
from edgesdk.near import suggest
from edgesdk.profiles.values import Provenance

if TYPE_CHECKING:
    from edgesdk.profiles.schema import ProvenanceModel

__all__ = ["spread_provenance"]


def _wrong(what: str, path: Path, key: str, problem: str, *, hint: str = "") -> ProfileError:
    return ProfileError(
        f"cannot use {what} {path}: {key} {problem}", hint=hint, path=str(path), key=key
    )


def _check_entry(what: str, path: Path, key: str, entry: ProvenanceModel) -> None:
    try:
        date.fromisoformat(entry.checked)
    except ValueError:
        raise _wrong(
            what,
            path,
            f"{key}.checked",
            f"is {entry.checked!r} (expected a day of the calendar)",
        ) from None
    if entry.kind == "datasheet" and "https://" not in entry.source:
        raise _wrong(
            what,
            path,
            f"{key}.source",
            f"is {entry.source[:80]!r} (expected a link, as kind is datasheet)",
            hint="give the https:// address of the document, or say that it is assumed",
        )


def _covers(stated: str, figure: str) -> bool:
    return figure == stated or figure.startswith(stated + ".")


def spread_provenance(
    path: Path,
    key: str,
    stated: Sequence[ProvenanceModel],
    figures: Sequence[str],
    *,
    what: str,
) -> dict[str, Provenance]:
    """Spread provenance over the figures it speaks for; the longest path wins.

    Args:
        path: The file, for the error.
        key: Where its entries stand.
        stated: The entries.
        figures: Every figure the file gives, by dotted path.
        what: What the file is, for the error.

    Returns:
        An entry for each figure, in the order of the figures.

    Raises:
        ProfileError: An entry is no good, speaks for nothing, or two say the same thing; or
            nothing speaks for a figure.
    """
    spread: dict[str, tuple[int, Provenance]] = {}
    seen: set[str] = set()
    for index, entry in enumerate(stated):
        here = f"{key}[{index}]"
        _check_entry(what, path, here, entry)
        for stated_path in entry.fields:
            if stated_path in seen:
                raise _wrong(what, path, f"{here}.fields", f"has {stated_path} a second time")
            seen.add(stated_path)
            covered = [figure for figure in figures if _covers(stated_path, figure)]
            if not covered:
                raise _wrong(
                    what,
                    path,
                    f"{here}.fields",
                    f"has {stated_path!r}, which is no figure given here "
                    f"(it gives {', '.join(figures) or 'none'})",
                    hint=suggest(stated_path, figures),
                )
            for figure in covered:
                if figure not in spread or spread[figure][0] < len(stated_path):
                    spread[figure] = (
                        len(stated_path),
                        Provenance(
                            field=figure,
                            kind=entry.kind,
                            source=entry.source,
                            checked=entry.checked,
                        ),
                    )
    for figure in figures:
        if figure not in spread:
            raise _wrong(
                what,
                path,
                f"{key}:",
                f"does not say where {figure} comes from",
                hint="add it to the fields of an entry, as kind: assumed if nobody checked it",
            )
    return {figure: spread[figure][1] for figure in figures}
