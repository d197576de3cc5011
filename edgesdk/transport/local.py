"""``local:``, the agent as a child process of this one, over pipes."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import re
import stat
import subprocess
import sys
from pathlib import Path

from edgesdk.errors import (
    BootstrapError,
    ChannelClosed,
    InventoryError,
    SpaceError,
)
from edgesdk.transport.base import AgentImage, LinkTraits
from edgesdk.transport.bootstrap import Placed
from edgesdk.transport.child_channel import ChildChannel, signal_name
from edgesdk.transport.url import DeviceUrl

__all__ = [
    "LocalChannel",
    "agent_file_name",
    "default_state_dir",
    "open_local",
    "place_agent",
    "put_agent",
    "state_folder",
]

_TRAITS = LinkTraits(chunk_bytes=1 << 20, window_bytes=8 << 20)
_AGENTS_KEPT = 8
_HINT = "name a folder of your own that may be written: local:?state=FOLDER"


def agent_file_name(sha256: str) -> str:
    """Name the file of an agent by its hash, the same on every device."""
    return f"agent-{sha256[:16]}.pyz"


def default_state_dir() -> Path:
    """Where the agent of this computer keeps its blobs and releases."""
    import platformdirs

    return Path(platformdirs.user_state_dir("edgesdk")) / "agent"


def state_folder(url: DeviceUrl, default: Path) -> Path:
    """Give the folder of this computer that a URL names with ``state=``, else the default.

    Raises:
        InventoryError: It begins with ``~`` and the name of nobody here.
    """
    given = url.query.get("state")
    try:
        return Path(given).expanduser().absolute() if given else default
    except RuntimeError as exc:
        raise InventoryError(
            f"cannot use device URL {str(url)!r}: the user of {given!r} has no home here",
            hint="write the whole path: state=/PATH, or state=~/PATH for your own home",
            url=str(url),
        ) from exc


def put_agent(agent: AgentImage, state: Path, *, hint: str = _HINT) -> Path:
    """Put the agent under ``state`` unless these very bytes are there, and give its path.

    Args:
        agent: Its bytes.
        state: The agent's folder, made if it is missing.
        hint: What to try where that cannot be.

    Raises:
        BootstrapError: It cannot be written, or others could change what would run.
    """
    folder = state / "bin"
    path = folder / agent_file_name(agent.sha256)
    try:
        state.parent.mkdir(parents=True, exist_ok=True)
        state.mkdir(mode=0o700, exist_ok=True)  # the agent refuses one that others may read
        if not any(state.iterdir()):
            state.chmod(0o700)
        folder.mkdir(mode=0o700, exist_ok=True)
        _require_ours(state, folder, hint=hint)
        with contextlib.suppress(FileNotFoundError):
            if hashlib.sha256(path.read_bytes()).hexdigest() == agent.sha256:
                return path
        partial = folder / f".{path.name}.{os.getpid()}.partial"
        with partial.open("wb") as file:
            file.write(agent.data)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
        files = [*folder.glob("agent-*.pyz"), *folder.glob(".agent-*.partial")]
        by_age = sorted(files, key=lambda file: file.stat().st_mtime)
        for old in by_age[:-_AGENTS_KEPT]:
            old.unlink(missing_ok=True)
    except OSError as exc:
        raise BootstrapError(
            f"cannot put the agent into {folder}: {exc.strerror}",
            hint=hint,
            state_dir=str(state),
        ) from exc
    return path


def _require_ours(*folders: Path, hint: str) -> None:
    """Refuse folders from which somebody else could make us run another file.

    Raises:
        BootstrapError: One is a link, or others may write there.
    """
    for folder in folders:
        seen = folder.lstat()
        if (
            seen.st_uid != os.geteuid()
            or not stat.S_ISDIR(seen.st_mode)
            or seen.st_mode & 0o022
        ):
            raise BootstrapError(
                f"cannot put the agent into {folder}: it is a link, or others may write there",
                hint=hint,
                state_dir=str(folder),
            )


class LocalChannel(ChildChannel):
    """Pipes to a child process; use `open_local` to get one with the agent behind it."""

    def __init__(self, command: list[str], *, name: str) -> None:
        try:
            super().__init__(command, name=name, traits=_TRAITS)
        except OSError as exc:
            raise BootstrapError(
                f"cannot start the agent with {command[0]}: {exc.strerror}",
                hint="is the interpreter there and executable?",
                python=command[0],
            ) from exc

    def _why_gone(
        self, doing: str, status: int | None, tail: str
    ) -> ChannelClosed | SpaceError:
        if status is None:
            how = "the agent closed its end"
        elif status < 0:
            how = f"the agent was ended by signal {signal_name(-status)}"
        else:
            how = f"the agent ended with status {status}"
        last = tail.splitlines()[-1][:300] if tail else ""
        if any(os.strerror(number) in last for number in (errno.EROFS, errno.ENOSPC)):
            return SpaceError(
                f"cannot start the agent on {self.name}: {last}",
                hint="is the disk full or mounted read-only? name another folder: "
                "local:?state=FOLDER",
                status=status,
            )
        return ChannelClosed(
            f"cannot {doing} {self.name}: {how}" + (f": {last}" if last else ""),
            hint="its last words are in the facts" if tail else "",
            status=status,
            stderr=tail,
        )


def _prove_python(python: str, name: str) -> None:
    """Run the interpreter that workers will use, so that a bad one is named at once.

    Raises:
        BootstrapError: It cannot be run, or is older than 3.7.
    """
    probe = "import sys; print('%d.%d.%d' % sys.version_info[:3])"
    problem = f"cannot use interpreter {python} on {name}"
    hint = (
        "name one of Python 3.7 or newer that has the runtime, such as python=/usr/bin/python3"
    )
    try:
        done = subprocess.run(
            [python, "-c", probe],
            capture_output=True,
            text=True,
            timeout=20.0,
            check=False,
            stdin=subprocess.DEVNULL,
        )
    except OSError as exc:
        reason = (exc.strerror or str(exc)).lower()
        raise BootstrapError(f"{problem}: {reason}", hint=hint, python=python) from exc
    except subprocess.TimeoutExpired as exc:
        seen = "it does not answer within 20 s"
        raise BootstrapError(f"{problem}: {seen}", hint=hint, python=python) from exc
    found = done.stdout.strip()
    if not re.match(r"\d+\.\d+\.\d+\Z", found):
        seen = f"it is no Python: it ended with status {done.returncode}"
        raise BootstrapError(f"{problem}: {seen}", hint=hint, python=python)
    if tuple(map(int, found.split(".")[:2])) < (3, 7):
        raise BootstrapError(
            f"{problem}: it is Python {found} (3.7 or newer)", hint=hint, python=python
        )


def place_agent(url: DeviceUrl, *, agent: AgentImage) -> Placed:
    """Put the agent into its state folder on this computer, and start nothing.

    Raises:
        BootstrapError: Its file cannot be written.
    """
    state = state_folder(url, default_state_dir())
    path = put_agent(agent, state)
    python = url.query.get("python", sys.executable)
    return Placed(path=str(path), state=str(state), python=python)


def open_local(url: DeviceUrl, *, agent: AgentImage) -> LocalChannel:
    """Start the agent on this computer.

    Raises:
        BootstrapError: Its file cannot be written, or the interpreter cannot be run.
    """
    placed = place_agent(url, agent=agent)
    if placed.python != sys.executable:
        _prove_python(placed.python, str(url))
    command = [sys.executable, "-I", "-S", placed.path, "stdio", "--state", placed.state]
    return LocalChannel([*command, "--python", placed.python], name=str(url))
