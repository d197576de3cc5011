"""``virtual:``, the agent in another machine's system that is emulated on this computer.

A virtual board is a folder under the user's cache that `edgesdk.testing.boards` makes: the
system in ``root``, a script that enters it, and a listing of what has to be there. Here it is
only entered. What the board keeps lies in its home folder, outside the cache, so that making
the board anew loses no release.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from edgesdk.errors import BootstrapError, InventoryError
from edgesdk.transport.base import AgentImage, Channel, OnPassword
from edgesdk.transport.local import LocalChannel, agent_file_name, put_agent, state_folder
from edgesdk.transport.url import DeviceUrl

__all__ = [
    "HOME_THERE",
    "KERNEL",
    "LISTING",
    "PYTHON_THERE",
    "STATE_THERE",
    "BoardFolder",
    "board_cache",
    "open_virtual",
    "why_not_enter",
]

#: The board's home folder and the agent's state folder, as the board sees them.
HOME_THERE = "/root"
STATE_THERE = f"{HOME_THERE}/.local/state/edgesdk/agent"
PYTHON_THERE = "/usr/bin/python3"
#: What a board's folder has if it is a whole machine.
KERNEL = "kernel"
#: A line for each file of the board: its size in bytes, a tab, its path under the folder.
LISTING = "files.txt"
_AGENT_IN_HOME = ".local/state/edgesdk/agent"
_PROBE_S = 20.0
_HINT = "name a folder of your own that may be written: virtual:NAME?state=FOLDER"


def board_cache() -> Path:
    """Give the folder in which virtual boards are kept, one folder each."""
    import platformdirs

    return Path(platformdirs.user_cache_dir("edgesdk")) / "boards"


@dataclass(frozen=True, slots=True, kw_only=True)
class BoardFolder:
    """A board on this computer's disk, made or not."""

    name: str
    path: Path

    @classmethod
    def of(cls, name: str) -> BoardFolder:
        """Give the one that is called ``name``."""
        return cls(name=name, path=board_cache() / name)

    @property
    def default_home(self) -> Path:
        """Where the board keeps its files unless another folder is named."""
        import platformdirs

        return Path(platformdirs.user_state_dir("edgesdk")) / "boards" / self.name

    @property
    def is_machine(self) -> bool:
        """Whether it is a whole machine with a kernel of its own."""
        return (self.path / KERNEL).is_file()

    def why_unusable(self) -> str | None:
        """Say what is missing or not as it was made, or None. Costs a few milliseconds."""
        try:
            lines = (self.path / LISTING).read_text(encoding="utf-8").splitlines()
        except FileNotFoundError:
            return "it has not been set up"
        except (OSError, UnicodeDecodeError) as exc:
            return f"{LISTING} cannot be read: {exc}"
        if not lines:
            return f"{LISTING} is empty"
        return next((why for line in lines if (why := self._why_differs(line))), None)

    def _why_differs(self, line: str) -> str | None:
        """Hold a line of the listing against what lies there."""
        size, _, name = line.partition("\t")
        if not size.isdecimal() or "\0" in name:  # as a power cut leaves files
            return f"{LISTING} is damaged"
        try:
            found = os.lstat(self.path / name).st_size
        except OSError:
            return f"{name} is missing"
        return (
            None if str(found) == size else f"{name} has {found} bytes, {size} when it was made"
        )

    def enter_command(
        self, home: Path, command: Sequence[str], *, writable: bool = False
    ) -> list[str]:
        """Give the command line that runs ``command`` in the board.

        It runs in a mount namespace of its own, so nothing that is mounted for it is seen
        outside. As root that is all; other users get a user namespace in which they are root.

        Args:
            home: The folder of this computer that is the board's home.
            command: The program and its arguments, as the board sees them.
            writable: Let it change the board's own files; only for making the board.
        """
        return [
            "unshare",
            *_namespaces(),
            "/bin/sh",
            str(self.path / "enter"),
            "rw" if writable else "ro",
            str(home),
            *command,
        ]


def _namespaces() -> list[str]:
    own = ["--mount", "--uts", "--propagation", "private"]
    return own if os.geteuid() == 0 else ["--user", "--map-root-user", *own]


def why_not_enter() -> tuple[str, str] | None:
    """Say why this user cannot enter a board here, and what to do; None where it works."""
    if shutil.which("unshare") is None:
        return "there is no program `unshare`", "`sudo apt-get install util-linux` installs it"
    # as the script will: a namespace alone is not enough where mounting is forbidden
    probe = ["unshare", *_namespaces(), "mount", "-t", "tmpfs", "tmpfs", "/tmp"]  # noqa: S108 - only in the probe's own namespace
    try:
        done = subprocess.run(
            probe,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_PROBE_S,
            check=False,
            stdin=subprocess.DEVNULL,
        )
    except (OSError, subprocess.TimeoutExpired) as exc:
        return f"`unshare` cannot be run: {exc}", "is util-linux installed as it should be?"
    if done.returncode == 0:
        return None
    said = (done.stderr.strip().splitlines() or [f"status {done.returncode}"])[-1][:200]
    seen = f"entering it takes mounts and a chroot, which the system forbids here ({said})"
    if os.geteuid() == 0:
        return seen, "in a container, start it with --privileged or --cap-add SYS_ADMIN"
    return seen, "run the command as root (sudo -E edgesdk ...)"


def require_whole(board: BoardFolder) -> None:
    """Make sure that a board is there as it was made.

    Raises:
        BootstrapError: It is not; the text says what is wrong and what to do.
    """
    problem = board.why_unusable()
    if problem is not None:
        raise BootstrapError(
            f"cannot enter the virtual board {board.name}: {problem}",
            hint=f"`edgesdk devices setup virtual:{board.name}` makes it, or makes it anew",
            folder=str(board.path),
        )


def require_enterable(board: BoardFolder) -> None:
    """Make sure that this user may enter boards.

    Raises:
        BootstrapError: The system forbids it.
    """
    refused = why_not_enter()
    if refused is not None:
        raise BootstrapError(
            f"cannot enter the virtual board {board.name}: {refused[0]}", hint=refused[1]
        )


def make_home(home: Path) -> Path:
    """Make a board's home folder and give the agent's state folder in it, as seen from here.

    Raises:
        BootstrapError: It cannot be made.
    """
    state = home / _AGENT_IN_HOME
    try:
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
        state.parent.mkdir(parents=True, exist_ok=True)
    except OSError as exc:
        raise BootstrapError(
            f"cannot make the board's home folder {home}: {exc.strerror}",
            hint=_HINT,
            state_dir=str(home),
        ) from exc
    return state


def open_virtual(
    url: DeviceUrl,
    *,
    agent: AgentImage,
    timeout_s: float = 30.0,
    on_password: OnPassword | None = None,
) -> Channel:
    """Put the agent into the board's home and start it in the board; start a machine.

    Raises:
        BootstrapError: The board is not there, not whole, or cannot be entered or started.
        InventoryError: A board without a machine of its own was asked for over one's link.
    """
    board = BoardFolder.of(url.path)
    require_whole(board)
    if board.is_machine:
        from edgesdk.transport.machine import open_machine

        return open_machine(
            url, board, agent=agent, timeout_s=timeout_s, on_password=on_password
        )
    if "link" in url.query:
        raise InventoryError(
            f"cannot use device URL {str(url)!r}: {board.name} has no such link",
            hint="leave link= out: the agent is started in it as a program",
            url=str(url),
        )
    require_enterable(board)
    home = state_folder(url, board.default_home)
    put_agent(agent, make_home(home), hint=_HINT)
    command = [
        *(PYTHON_THERE, "-I", "-S", f"{STATE_THERE}/bin/{agent_file_name(agent.sha256)}"),
        *("stdio", "--state", STATE_THERE, "--python", PYTHON_THERE),
    ]
    return LocalChannel(board.enter_command(home, command), name=str(url))
