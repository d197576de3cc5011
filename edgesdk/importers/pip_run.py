"""Have pip fill an environment, count what it brings, and say well why it could not."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import tempfile
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path

from edgesdk.errors import ToolchainError
from edgesdk.importers.toolchain_spec import ToolchainSpec

__all__ = ["install_packages"]

_KEPT_LINES = 60
_COLLECTING = re.compile(r"Collecting ([A-Za-z0-9._-]+)")
#: What pip says where the index cannot be reached: then it knows no version of anything.
_NO_NETWORK = re.compile(
    r"Temporary failure in name resolution|Name or service not known|Connection refused|"
    r"Network is unreachable|Could not fetch URL|ConnectTimeout|ProxyError|"
    r"\(from versions: none\)",
)


def install_packages(
    spec: ToolchainSpec,
    pip: Sequence[str],
    *,
    wheels: Path | None,
    on_package: Callable[[int], None],
) -> None:
    """Install a toolchain's packages; pip's own settings (index, proxy) hold as they are.

    Args:
        spec: What to install.
        pip: The command that is pip for the environment.
        wheels: A folder to take everything from, instead of an index.
        on_package: Told how many packages pip has looked at.

    Raises:
        ToolchainError: pip failed; its own reason is said, and what to do without a network.
    """
    with tempfile.TemporaryDirectory(prefix="edgesdk-pip-") as folder:
        listing = Path(folder) / f"{spec.name}.txt"
        listing.write_text("\n".join(spec.packages) + "\n", encoding="utf-8")
        source = [] if wheels is None else ["--no-index", "--find-links", str(wheels)]
        command = [
            *pip,
            *("install", "--disable-pip-version-check", "--no-input", "--only-binary=:all:"),
            *("--progress-bar", "off", *source, "--requirement", str(listing)),
        ]
        lines: deque[str] = deque(maxlen=_KEPT_LINES)
        status = _follow(command, lines, on_package)
    if status != 0:
        raise _failed(spec, list(lines), status, wheels)


def _follow(
    command: Sequence[str], lines: deque[str], on_package: Callable[[int], None]
) -> int:
    seen: set[str] = set()
    with subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        env=_environment(),
        start_new_session=True,  # pip starts itself again; both have to end with us
    ) as child:
        try:
            assert child.stdout is not None
            for line in child.stdout:
                lines.append(line.strip()[:500])
                found = _COLLECTING.match(lines[-1])
                if found and found[1].lower() not in seen:
                    seen.add(found[1].lower())
                    on_package(len(seen))
            return child.wait()
        except BaseException:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
            raise


def _environment() -> dict[str, str]:
    """Give pip the user's settings, but none of their packages, which would count as there."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    return {**kept, "PIP_USER": "0", "PIP_REQUIRE_VIRTUALENV": "0"}


def _failed(
    spec: ToolchainSpec, lines: list[str], status: int, wheels: Path | None
) -> ToolchainError:
    named = [line for line in lines if line.startswith("ERROR:")]
    last = (named or lines[-1:] or [f"pip ended with status {status}"])[0]
    text = "\n".join(lines)
    names = " ".join(spec.packages)
    if wheels is not None:
        hint = f"fill it where there is a network: pip download -d {wheels} {names}"
    elif _NO_NETWORK.search(text):
        hint = (
            "this computer has to reach a package index; without one: `pip download -d wheels "
            f"{names}` where there is one, bring the folder here, and `edgesdk toolchains make "
            f"{spec.name} --wheels wheels`"
        )
    else:
        hint = f"is there room on the disk, and has your package index all of these? {names}"
    return ToolchainError(
        f"cannot make the toolchain {spec.name}: pip says {last[:300]}",
        hint=hint,
        name=spec.name,
        status=status,
        output=text[-4000:],
    )
