"""Debian packages of another architecture, fetched by apt without touching this system.

apt gets a configuration, an index and a cache of its own in a folder; the system's lists, its
architectures and its installed packages are neither read nor changed. apt checks the release
file's signature, and by its hashes every index and package. Proxies and the like that are set
in ``/etc/apt/apt.conf.d`` are obeyed.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import tarfile
from collections.abc import Sequence
from pathlib import Path

from edgesdk.errors import BootstrapError
from edgesdk.testing.boards.commands import run_program

__all__ = [
    "KEYRING",
    "apt_configuration",
    "fetch_packages",
    "planned_files",
    "source_lines",
    "unpack_file",
    "unpack_package",
]

#: By which apt checks what it fetches.
KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
_MIRROR = "http://deb.debian.org"
#: ``Inst NAME [old version] (VERSION ORIGIN [ARCHITECTURE])``
_PLANNED = re.compile(
    r"^Inst (\S+) (?:\[[^\]]*\] )?\((\S+) [^\[\n]*\[([a-z0-9]+)\]\)", re.MULTILINE
)
_INDEX_S = 300.0
_FETCH_S = 900.0
_UNPACK_S = 120.0


def source_lines(suite: str, architectures: Sequence[str], *, mirror: str = _MIRROR) -> str:
    """Give the ``sources.list`` for a suite and its security updates."""
    options = f"[arch={','.join(architectures)} signed-by={KEYRING}]"
    return (
        f"deb {options} {mirror}/debian {suite} main\n"
        f"deb {options} {mirror}/debian-security {suite}-security main\n"
    )


def apt_configuration(folder: Path, architectures: Sequence[str]) -> str:
    """Give an apt configuration that keeps everything under ``folder``.

    Args:
        folder: Holds ``sources.list``, and what apt writes.
        architectures: Debian's names; the first is the one that packages are taken for.
    """
    quoted = "; ".join(f'"{each}"' for each in architectures)
    return (
        f'Dir::State "{folder}/state";\n'
        f'Dir::State::status "{folder}/state/status";\n'
        f'Dir::Cache "{folder}/cache";\n'
        f'Dir::Etc::sourcelist "{folder}/sources.list";\n'
        'Dir::Etc::sourceparts "-";\n'
        'Dir::Etc::preferences "-";\n'
        'Dir::Etc::preferencesparts "-";\n'
        f'APT::Architecture "{architectures[0]}";\n'
        f"APT::Architectures {{ {quoted}; }};\n"
        'APT::Install-Recommends "false";\n'
        'APT::Install-Suggests "false";\n'
        'APT::Sandbox::User "root";\n'  # the user's own folder is closed to apt's user
        'APT::Update::Error-Mode "any";\n'  # else a mirror that cannot be reached is a warning
        'Acquire::Languages "none";\n'
        'Acquire::Retries "3";\n'
    )


def fetch_packages(
    folder: Path, *, suite: str, architecture: str, native: str, packages: Sequence[str]
) -> list[Path]:
    """Fetch packages and all that they depend on.

    Args:
        folder: Apt's own; a package that lies there from before is checked and used.
        suite: The Debian release.
        architecture: For which machine.
        native: This computer's architecture, for packages that are named ``NAME:ARCHITECTURE``.
        packages: Their names.

    Returns:
        The ``.deb`` files.

    Raises:
        BootstrapError: The mirror cannot be reached, or what it gives is not what was signed.
    """
    doing = f"fetch Debian's {architecture} packages"
    archives = folder / "cache" / "archives"
    for each in (archives / "partial", folder / "state" / "lists" / "partial"):
        each.mkdir(parents=True, exist_ok=True)
    (folder / "state" / "status").write_text("")
    architectures = list(dict.fromkeys((architecture, native)))
    (folder / "sources.list").write_text(source_lines(suite, architectures))
    configuration = folder / "apt.conf"
    configuration.write_text(apt_configuration(folder, architectures))
    environment = {"APT_CONFIG": str(configuration), "DEBIAN_FRONTEND": "noninteractive"}
    hint = f"can this computer reach {_MIRROR}? a proxy is set in /etc/apt/apt.conf.d"
    run_program(
        ["apt-get", "update"],
        doing=doing,
        timeout_s=_INDEX_S,
        hint=hint,
        environment=environment,
    )
    install = ["apt-get", "install", "--yes"]
    run_program(
        [*install, "--download-only", *packages],
        doing=doing,
        timeout_s=_FETCH_S,
        hint=hint,
        environment=environment,
    )
    # the folder may hold older versions, too: apt says which files it would install
    planned = run_program(
        [*install, "--simulate", *packages],
        doing=doing,
        timeout_s=_INDEX_S,
        hint=f"remove {folder} and try again",
        environment=environment,
    )
    files = [archives / name for name in planned_files(planned)]
    missing = [file.name for file in files if not file.is_file()]
    if missing or not files:
        raise BootstrapError(
            f"cannot {doing}: apt did not leave {', '.join(missing[:3]) or 'any file'} "
            f"in {archives}",
            hint="please report this with the versions of apt and of the system",
        )
    return files


def planned_files(text: str) -> list[str]:
    """Read from ``apt-get --simulate`` the names of the files it would install.

    apt keeps them as ``NAME_VERSION_ARCHITECTURE.deb`` with the colon of a version escaped.
    """
    return [
        f"{name.partition(':')[0]}_{version.replace(':', '%3a')}_{architecture}.deb"
        for name, version, architecture in _PLANNED.findall(text)
    ]


def unpack_package(package: Path, folder: Path) -> None:
    """Unpack a package's files into ``folder``; none of its scripts runs.

    Raises:
        BootstrapError: It cannot be unpacked.
    """
    run_program(
        ["dpkg-deb", "--extract", str(package), str(folder)],
        doing=f"unpack {package.name}",
        timeout_s=_UNPACK_S,
        hint="is there room on the disk?",
    )


def unpack_file(package: Path, name: str, out: Path) -> None:
    """Unpack one file of a package, which may hold hundreds of megabytes of others.

    Args:
        package: A ``.deb`` file.
        name: The file's path in it, such as ``usr/bin/x``.
        out: Where to write it; may be run, if it may there.

    Raises:
        BootstrapError: It is not in it, or the package cannot be read.
    """
    command = ["dpkg-deb", "--fsys-tarfile", str(package)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as reader:
        try:
            with tarfile.open(fileobj=reader.stdout, mode="r|") as archive:
                for member in archive:
                    if member.name.removeprefix("./") == name and member.isfile():
                        source = archive.extractfile(member)
                        assert source is not None
                        with out.open("wb") as file:
                            shutil.copyfileobj(source, file)
                        out.chmod(member.mode & 0o755)
                        return
        except tarfile.TarError as exc:
            raise BootstrapError(
                f"cannot unpack {package.name}: {exc}", hint="is there room on the disk?"
            ) from exc
        finally:
            reader.kill()
    raise BootstrapError(
        f"cannot unpack {package.name}: it has no {name}", hint="please report this"
    )
