"""How the agent gets onto a device that has nothing but an SSH server and Python.

The remote command is a constant: an interpreter and the script below. Everything else travels
as data: one line of JSON on the script's standard input, then, if the device asks for it, the
agent. The script says which stage it reached in lines that carry a random token from that
header, so a greeting or an rc file that prints cannot be taken for one, and a failed start
names its stage.
"""

from __future__ import annotations

import base64
import contextlib
import json
import re
import secrets
import shlex
import time
from dataclasses import dataclass
from typing import Protocol

from edgesdk.errors import BootstrapError, ChannelClosed, ChannelError, ChannelTimeout
from edgesdk.transport.base import AgentImage

__all__ = [
    "Marker",
    "MarkerReader",
    "Placed",
    "RemoteProgram",
    "bootstrap_command",
    "bootstrap_header",
    "run_bootstrap",
]

#: What may come before the first marker (greeting, rc files) and is thrown away.
MAX_NOISE_BYTES = 32 << 20
_KEPT_BYTES = 4096

# Runs on any Python from 2.7 on, so that even that one can say that it is too old. No module is
# imported from the current folder. It reads its input unbuffered: what follows is the agent's.
_SCRIPT = r"""
import sys
sys.path = [p for p in sys.path if p]
import os, json, hashlib
def line():
    got = b""
    while not got.endswith(b"\n"):
        c = os.read(0, 1)
        if not c or len(got) > 8192: sys.exit(71)
        got += c
    return json.loads(got.decode("utf-8"))
head = line()
def say(*words):
    os.write(1, ("\nEDGESDK %s %s\n" % (head["token"], json.dumps(words))).encode("ascii"))
stage = "start"
part = None
try:
    version = "%d.%d.%d" % tuple(sys.version_info[:3])
    if sys.version_info < (3, 7):
        say("OLD", version)
        sys.exit(72)
    base = os.environ.get("XDG_STATE_HOME") or "~/.local/state"
    state = os.path.abspath(os.path.expanduser(head["state"] or base + "/edgesdk/agent"))
    folder = os.path.join(state, "bin")
    stage = "folder"
    os.makedirs(state, 0o700, exist_ok=True)
    if not os.listdir(state): os.chmod(state, 0o700)
    os.makedirs(folder, 0o700, exist_ok=True)
    for p in (state, folder):
        s = os.lstat(p)
        if s.st_uid != os.geteuid() or not 0o40000 <= s.st_mode <= 0o47777 or s.st_mode & 0o022:
            say("FAIL", stage, 0, "%s is a link, or others may write there" % p)
            sys.exit(73)
    path = os.path.join(folder, "agent-" + head["sha256"][:16] + ".pyz")
    have = False
    if os.path.isfile(path) and os.path.getsize(path) == head["size"]:
        with open(path, "rb") as f:
            have = hashlib.sha256(f.read()).hexdigest() == head["sha256"]
    say("HAVE" if have else "NEED", version)
    if not have:
        stage = "receive"
        data = bytearray()
        while len(data) < head["size"]:
            piece = os.read(0, min(65536, head["size"] - len(data)))
            if not piece: sys.exit(71)
            data += piece
        if hashlib.sha256(data).hexdigest() != head["sha256"]:
            say("FAIL", stage, 0, "the bytes do not hash to their name")
            sys.exit(73)
        stage = "write"
        part = os.path.join(folder, ".agent-%d.partial" % os.getpid())
        fd = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
        with os.fdopen(fd, "wb") as f:
            f.write(data)
            f.flush()
            os.fsync(f.fileno())
        os.rename(part, path)
        fd = os.open(folder, os.O_RDONLY)
        os.fsync(fd)
        os.close(fd)
        old = sorted((os.path.getmtime(os.path.join(folder, n)), n) for n in os.listdir(folder)
                     if n.startswith("agent-") or n.startswith(".agent-"))
        for _, name in old[:-8]:
            os.unlink(os.path.join(folder, name))
    stage = "run"
    python = sys.executable
    rest = head["command"]
    say("RUN", path, state, python)
    if rest is None: sys.exit(0)
    rest = rest + ["--state", state, "--python", python]
    os.execv(python, [python, "-I", "-S", path] + rest)
except (OSError, IOError) as e:
    if part and os.path.exists(part):
        os.unlink(part)
    say("FAIL", stage, e.errno or 0, str(e.strerror or e))
    sys.exit(74)
"""
_ENCODED = base64.b64encode(_SCRIPT.encode("ascii")).decode("ascii")
_TOKEN = re.compile(r"[0-9a-f]{32}\Z")


def bootstrap_command(python: str = "python3") -> str:
    """Give the remote command for an interpreter that `parse_device_url` has accepted.

    ``-E -s -S`` keep the device's environment and site packages out; the script is encoded so
    that no shell, whichever the user has there, finds anything to interpret in it.
    """
    code = f'import base64;exec(base64.b64decode("{_ENCODED}"))'
    return f"{shlex.quote(python)} -E -s -S -c '{code}'"


def bootstrap_header(
    *, token: str, sha256: str, size: int, state: str | None, command: list[str] | None
) -> bytes:
    """Give the line that goes first; with ``command`` None nothing is started."""
    assert _TOKEN.match(token)
    record = {
        "token": token,
        "sha256": sha256,
        "size": size,
        "state": state,
        "command": command,
    }
    return json.dumps(record).encode("ascii") + b"\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class Marker:
    """A stage the script has reached: ``OLD``, ``HAVE``, ``NEED``, ``RUN`` or ``FAIL``."""

    stage: str
    words: tuple[str | int, ...]


class MarkerReader:
    """Finds the script's lines between whatever else a login prints. No I/O happens here."""

    def __init__(self, token: str) -> None:
        self._start = f"\nEDGESDK {token} ".encode("ascii")
        self._buffer = b"\n"
        self.noise_bytes = 0
        self._noise_tail = b""

    @property
    def noise_tail(self) -> str:
        """The last that came and was no marker."""
        return (
            (self._noise_tail + self._buffer)[-_KEPT_BYTES:].decode("utf-8", "replace").strip()
        )

    @property
    def rest(self) -> bytes:
        """What came after the last marker: the agent's first bytes."""
        return self._buffer

    def feed(self, data: bytes) -> Marker | None:
        """Take bytes and give the next marker once it is complete.

        Raises:
            BootstrapError: Too much came that is none.
        """
        self._buffer += data
        start = self._buffer.find(self._start)
        if start < 0:
            self._drop(max(0, len(self._buffer) - len(self._start) + 1))
            return None
        self._drop(start)
        end = self._buffer.find(b"\n", len(self._start))
        if end < 0:
            if len(self._buffer) > 2 * _KEPT_BYTES:
                self._drop(len(self._start))
            return None
        line = self._buffer[len(self._start) : end]
        self._buffer = self._buffer[end + 1 :]
        try:
            words = json.loads(line)
        except (ValueError, RecursionError):
            words = None
        if not isinstance(words, list) or not words or not isinstance(words[0], str):
            return self.feed(b"")
        kept = tuple(word for word in words[1:] if isinstance(word, str | int))
        return Marker(stage=words[0], words=kept)

    def _drop(self, count: int) -> None:
        self.noise_bytes += count
        self._noise_tail = (self._noise_tail + self._buffer[:count])[-_KEPT_BYTES:]
        self._buffer = self._buffer[count:]
        if self.noise_bytes > MAX_NOISE_BYTES:
            raise BootstrapError(
                f"cannot start the agent: the login printed over {MAX_NOISE_BYTES} bytes first",
                hint="a shell start file there prints without end; keep it quiet when nobody "
                "is at the terminal",
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Placed:
    """Where the agent is on the device: its file, state folder and interpreter."""

    path: str
    state: str
    python: str


class RemoteProgram(Protocol):
    """A channel to a command on a device, which can also tell how the command ended."""

    name: str

    @property
    def exit_status(self) -> int | None:
        """What it ended with; None while it runs or where that is not known."""

    @property
    def stderr_tail(self) -> str:
        """The last it wrote to standard error."""

    def read(self, *, timeout_s: float) -> bytes:
        """As `edgesdk.transport.base.Channel.read`."""

    def write(self, data: bytes, *, timeout_s: float) -> None:
        """As `edgesdk.transport.base.Channel.write`."""

    def give_back(self, data: bytes) -> None:
        """Let the next `read` give ``data`` first."""


def _next_marker(
    channel: RemoteProgram, reader: MarkerReader, *, deadline: float, after: str
) -> Marker:
    """Wait for the bootstrap's next stage.

    Raises:
        BootstrapError: It never gets there; the text says how far it got.
    """
    marker = reader.feed(b"")
    while marker is None:
        try:
            data = channel.read(timeout_s=max(0.1, deadline - time.monotonic()))
        except ChannelTimeout as exc:
            raise BootstrapError(
                f"cannot start the agent on {channel.name}: nothing was heard after {after}",
                hint="does a shell start file there wait for input?",
                stage=after,
                printed=reader.noise_tail,
            ) from exc
        except ChannelClosed as exc:
            raise _died(channel, reader, after) from exc
        marker = reader.feed(data)
    if marker.stage == "OLD":
        found = marker.words[0] if marker.words else "unknown"
        raise BootstrapError(
            f"cannot start the agent on {channel.name}: its Python is {found} (3.7 or newer)",
            hint="name a newer one that is there: ssh://...?python=/usr/bin/python3.8",
            python=found,
        )
    if marker.stage == "FAIL":
        stage, _, reason = (*marker.words, "", "", "")[:3]
        raise BootstrapError(
            f"cannot start the agent on {channel.name}: stage {stage}: {reason}",
            hint="may that user write to the state folder, and is there room? "
            "another: ssh://...?state=FOLDER",
            stage=stage,
        )
    return marker


def _died(channel: RemoteProgram, reader: MarkerReader, after: str) -> BootstrapError:
    status, stderr = channel.exit_status, channel.stderr_tail
    last = stderr.splitlines()[-1][:300] if stderr else reader.noise_tail[-300:]
    facts = {"status": status, "stderr": stderr, "printed": reader.noise_tail, "stage": after}
    if status in (126, 127):
        return BootstrapError(
            f"cannot start the agent on {channel.name}: there is no such Python: {last}",
            hint="install one there (`sudo apt-get install python3`), or name it: "
            "ssh://...?python=/usr/bin/python3.8",
            **facts,
        )
    if "option" in stderr.lower() and "usage" in stderr.lower():
        last = "that Python does not know -E, -s and -S"
    how = (
        "the connection was lost" if status is None or status < 0 else f"it ended with {status}"
    )
    return BootstrapError(
        f"cannot start the agent on {channel.name}: {how} after {after}"
        + (f": {last}" if last else ""),
        hint="does `ssh` to that host run commands, and does its shell start file exit?",
        **facts,
    )


def run_bootstrap(
    channel: RemoteProgram,
    agent: AgentImage,
    *,
    state: str | None,
    command: list[str] | None,
    deadline: float,
) -> Placed:
    """Go through the stages of the bootstrap, over a channel on which its command was started.

    Args:
        channel: That channel.
        agent: What to put there.
        state: The agent's state folder there; None for the default.
        command: What the agent is started with; None puts it there and starts nothing.
        deadline: When to give up, on the monotonic clock.

    Raises:
        BootstrapError: A stage failed; the text names it.
    """
    token = secrets.token_hex(16)
    reader = MarkerReader(token)
    header = bootstrap_header(
        token=token, sha256=agent.sha256, size=len(agent.data), state=state, command=command
    )
    with contextlib.suppress(ChannelError):  # a command that is gone says why when it is read
        channel.write(header, timeout_s=max(0.1, deadline - time.monotonic()))
    marker = _next_marker(channel, reader, deadline=deadline, after="login")
    if marker.stage == "NEED":
        channel.write(agent.data, timeout_s=max(1.0, deadline - time.monotonic()))
    marker = _next_marker(channel, reader, deadline=deadline, after=f"stage {marker.stage}")
    if marker.stage != "RUN" or len(marker.words) != 3:
        raise BootstrapError(f"cannot start the agent on {channel.name}: it said {marker}")
    channel.give_back(reader.rest)
    path, home, python = (str(word) for word in marker.words)
    return Placed(path=path, state=home, python=python)
