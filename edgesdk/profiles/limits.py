"""Device limits: what a runtime takes on one of its devices, from files under ``limits``.

For runtimes that read a graph as it is and compile it where it runs, so that no compiler can be
asked beforehand. What no file says, the device's own compiler decides.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from edgesdk.errors import ProfileError
from edgesdk.profiles.limits_values import DeviceLimits
from edgesdk.profiles.named_files import find_named, named_files
from edgesdk.profiles.provenance import spread_provenance
from edgesdk.yaml_file import read_yaml

if TYPE_CHECKING:
    from edgesdk.profiles.limits_schema import DeviceLimitsModel

__all__ = ["LIMITS_FOLDER", "limits_files", "load_limits"]

#: Where the files lie, in the folder of the family files that name them.
LIMITS_FOLDER = "limits"
_WHAT = "device limits"


def limits_files(folder: Path | None = None) -> dict[str, Path]:
    """List the files there are, by name; see `named_files`."""
    return named_files(LIMITS_FOLDER, folder)


def load_limits(name: str, *, folder: Path | None = None) -> DeviceLimits:
    """Read and check the limits called ``name``.

    Args:
        name: The file's name, without its suffix.
        folder: A folder with files of the user's own, which go before the shipped ones.

    Raises:
        ProfileError: There are none of that name, or something in the file is unknown, out of
            range or has no provenance; the text names file and key.
    """
    return _load(*find_named(name, limits_files(folder), what=_WHAT))


@lru_cache(maxsize=16)
def _load(path: Path, _state: tuple[int, ...]) -> DeviceLimits:  # a changed file is read anew
    """Read the limits of a file."""
    from edgesdk.profiles.limits_schema import DeviceLimitsModel
    from edgesdk.profiles.schema import parse_model

    content = read_yaml(
        path, what=_WHAT, error=ProfileError, expected="a mapping with schema, name, ..."
    )
    model = parse_model(path, content, DeviceLimitsModel, what=_WHAT)
    if model.name != path.stem:
        raise ProfileError(
            f"cannot use {_WHAT} {path}: name is {model.name} "
            f"(expected {path.stem}, like the file)",
            path=str(path),
            key="name",
        )
    spread = spread_provenance(
        path, "provenance", model.provenance, tuple(_figures(model)), what=_WHAT
    )
    return DeviceLimits(
        name=model.name,
        fixed_shapes=model.fixed_shapes,
        types=tuple(model.types),
        most_rank=model.most_rank,
        refused=MappingProxyType(dict(model.refused)),
        assumed=tuple(path for path, entry in spread.items() if entry.kind == "assumed"),
    )


def _figures(model: DeviceLimitsModel) -> Iterator[str]:
    """List, by path, what the file states of the device."""
    yield from ("fixed_shapes", "types")
    if model.most_rank is not None:
        yield "most_rank"
    for op in model.refused:
        yield f"refused.{op}"
