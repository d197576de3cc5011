"""Finding targets: all family files of the shipped folder and of a folder of the user's own."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from edgesdk._resources import resource_dir
from edgesdk.errors import EdgeError, ProfileError
from edgesdk.near import near_misses
from edgesdk.profiles.family import load_family
from edgesdk.profiles.values import TargetProfile

__all__ = ["Catalog", "default_target", "find_target", "load_catalog"]

#: Targets by name, in the order of their names.
Catalog = Mapping[str, TargetProfile]

_SUFFIXES = (".yaml", ".yml")
_MAX_FILES = 500


def _family_files(folder: Path) -> list[Path]:
    """List the YAML files of a folder in the order of their names; others are not looked at."""
    try:
        files = sorted(path for path in folder.iterdir() if path.suffix in _SUFFIXES)
    except OSError as exc:
        raise ProfileError(
            f"cannot read the folder of target profiles {folder}: "
            f"{(exc.strerror or str(exc)).lower()}",
            hint="check the setting that names your own folder of target profiles",
            path=str(folder),
        ) from exc
    if len(files) > _MAX_FILES:
        raise ProfileError(
            f"cannot read the folder of target profiles {folder}: it has {len(files)} YAML "
            f"files (expected {_MAX_FILES} at most)",
            path=str(folder),
        )
    return files


def _add_folder(folder: Path, targets: dict[str, TargetProfile]) -> list[TargetProfile]:
    """Add a folder's targets to ``targets`` and give them."""
    added = []
    for path in _family_files(folder):
        for profile in load_family(path):
            other = targets.get(profile.name)
            if other is not None:
                raise ProfileError(
                    f"cannot use target profile {path}: the name {profile.name} is already "
                    f"taken by {other.source}",
                    hint=f"rename one of the two, for instance to my-{profile.name}",
                    name=profile.name,
                    paths=[str(other.source), str(path)],
                )
            targets[profile.name] = profile
            added.append(profile)
    defaults = [profile for profile in added if profile.default]
    if len(defaults) > 1:
        raise ProfileError(
            f"cannot use the target profiles of {folder}: both {defaults[0].source.name} and "
            f"{defaults[1].source.name} have the default (expected one at most)",
            hint="leave default: true in one of them",
            paths=[str(profile.source) for profile in defaults],
        )
    return added


def load_catalog(extra_dir: Path | None = None) -> Catalog:
    """Read and check every target profile there is.

    Args:
        extra_dir: A folder with family files of the user's own, beside the shipped ones.

    Raises:
        ProfileError: A file cannot be used, or a name is taken twice; no file is left out
            silently.
    """
    targets: dict[str, TargetProfile] = {}
    _add_folder(resource_dir("targets"), targets)
    if extra_dir is not None:
        _add_folder(extra_dir, targets)
    return MappingProxyType({name: targets[name] for name in sorted(targets)})


def find_target(name: str, *, extra_dir: Path | None = None) -> TargetProfile:
    """Give the target called ``name``.

    Raises:
        ProfileError: There is none of that name; the hint lists near misses, the facts all
            names. Or a profile cannot be used.
    """
    catalog = load_catalog(extra_dir)
    if name in catalog:
        return catalog[name]
    near = near_misses(name, list(catalog))
    wanted = f"did you mean {' or '.join(near)}?" if near else f"there are {', '.join(catalog)}"
    raise ProfileError(
        f"cannot find target {name[:100]!r}: no profile has that name "
        f"(expected one of {len(catalog)})",
        hint=f"{wanted}; see edgesdk targets list" if near else wanted,
        name=name[:100],
        near=list(near),
        known=list(catalog),
    )


def default_target(*, extra_dir: Path | None = None) -> TargetProfile:
    """Give the target that is meant when none is named: the one whose file says so.

    A default in the user's own folder goes before the shipped one.

    Raises:
        ProfileError: A profile cannot be used.
    """
    shipped = resource_dir("targets")
    defaults = [profile for profile in load_catalog(extra_dir).values() if profile.default]
    own = [profile for profile in defaults if profile.source.parent != shipped]
    for profile in own or defaults:
        return profile
    raise EdgeError(
        f"cannot choose a target: no profile in {shipped} says that it is the default",
        hint="the installation is incomplete; install edgesdk again",
    )
