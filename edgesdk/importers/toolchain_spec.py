"""What a toolchain is made of, read from its YAML file."""

from __future__ import annotations

import hashlib
import json
import platform
import re
from dataclasses import dataclass
from pathlib import Path

from edgesdk._resources import resource_dir
from edgesdk.errors import InputError
from edgesdk.near import suggest
from edgesdk.yaml_file import read_yaml

__all__ = ["ToolchainSpec", "find_toolchain", "load_toolchain", "shipped_toolchains"]

_KEYS = {"schema", "name", "about", "python", "packages", "imports"}
_NAME = re.compile(r"[a-z][a-z0-9-]{0,30}")
_PIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,60}==[0-9][A-Za-z0-9.+!]{0,40}")
#: A package that is another one on other machines, as pip's own markers write it.
_MARKED = re.compile(r"(.*); platform_machine (==|!=) '([a-z0-9_]{1,20})'")
_MODULE = re.compile(r"[A-Za-z_][A-Za-z0-9_.]{0,60}")
_RANGE = re.compile(r">=3\.([0-9]{1,2}),<3\.([0-9]{1,2})")


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolchainSpec:
    """A toolchain: packages pinned by version, for a range of Python 3's minor versions.

    ``packages`` are pip requirements of the form ``name==version``, those for this machine.
    What they need beside these, pip chooses: wheels differ from machine to machine, and so
    does what they need.
    ``imports`` are the modules that have to load in it.
    """

    name: str
    about: str
    oldest: int
    below: int
    packages: tuple[str, ...]
    imports: tuple[str, ...]

    def digest(self, minor: int) -> str:
        """Hash all that decides what the environment becomes, for Python ``3.<minor>``."""
        parts = [self.name, minor, platform.machine(), self.packages, self.imports]
        return hashlib.sha256(json.dumps(parts).encode("utf-8")).hexdigest()

    def takes(self, minor: int) -> bool:
        """Tell whether its packages have wheels for Python ``3.<minor>``."""
        return self.oldest <= minor < self.below


def shipped_toolchains() -> dict[str, ToolchainSpec]:
    """Read every toolchain that edgesdk ships, by name."""
    files = sorted(resource_dir("toolchains").glob("*.yaml"))
    specs = [load_toolchain(path) for path in files]
    return {spec.name: spec for spec in specs}


def find_toolchain(name: str) -> ToolchainSpec:
    """Find a toolchain by its name.

    Raises:
        InputError: There is none of that name.
    """
    known = shipped_toolchains()
    if name not in known:
        raise InputError(
            f"cannot find toolchain {name!r}",
            hint=f"{suggest(name, list(known))} toolchains are {', '.join(known)}".strip(),
            name=name,
        )
    return known[name]


def load_toolchain(path: Path) -> ToolchainSpec:
    """Read one file.

    Raises:
        InputError: It is no such file, or says what pip must not be told.
    """
    record = read_yaml(
        path,
        what="toolchain",
        error=InputError,
        hint="take one of configs/toolchains as an example",
        expected="one 'name: value' a line",
    )

    def wrong(seen: str) -> InputError:
        return InputError(
            f"cannot read toolchain {path}: {seen}",
            hint="take one of configs/toolchains as an example",
            path=str(path),
        )

    if set(record) != _KEYS or record["schema"] != 1:
        raise wrong(f"it has the keys {sorted(record)} (expected {sorted(_KEYS)}, schema: 1)")
    name, python = str(record["name"]), str(record["python"])
    extents = _RANGE.fullmatch(python)
    if not _NAME.fullmatch(name) or name != path.stem:
        raise wrong(f"its name is {name!r} (expected that of the file)")
    if extents is None:
        raise wrong(f"python is {python!r} (expected '>=3.11,<3.14')")
    return ToolchainSpec(
        name=name,
        about=str(record["about"]),
        oldest=int(extents[1]),
        below=int(extents[2]),
        packages=_texts(
            _for_here(record["packages"]), _PIN, wrong("a package is not 'name==version'")
        ),
        imports=_texts(record["imports"], _MODULE, wrong("an import is no module's name")),
    )


def _for_here(packages: object) -> object:
    """Take the packages that are for this machine, without their markers."""
    if not isinstance(packages, list):
        return packages
    taken = []
    for each in packages:
        marked = _MARKED.fullmatch(each) if isinstance(each, str) else None
        if marked is None:
            taken.append(each)
        elif (marked[3] == platform.machine()) is (marked[2] == "=="):
            taken.append(marked[1])
    return taken


def _texts(value: object, form: re.Pattern[str], refusal: InputError) -> tuple[str, ...]:
    if not isinstance(value, list) or not value:
        raise refusal
    if not all(isinstance(one, str) and form.fullmatch(one) for one in value):
        raise refusal
    return tuple(value)
