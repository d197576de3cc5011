"""The agent goes through a shell on a console, in checked pieces, and is started there."""

from __future__ import annotations

import contextlib
import re
import secrets
import shlex
import time
import zlib
from dataclasses import dataclass

from edgesdk.errors import BootstrapError, ChannelError
from edgesdk.progress import OnProgress, Progress
from edgesdk.transport.base import AgentImage
from edgesdk.transport.bootstrap import Marker, MarkerReader
from edgesdk.transport.console_login import is_shell
from edgesdk.transport.console_screen import Screen
from edgesdk.transport.console_script import (
    PIECE_BYTES,
    console_header,
    loader_lines,
    piece_line,
    script_pieces,
    split_pieces,
)

__all__ = ["ConsolePlaced", "push_through_shell"]

#: What the agent imports and small builds of Python leave out.
_MODULES = ("ctypes", "fcntl", "hashlib", "json", "select", "socket", "subprocess", "threading")
_OLDEST = (3, 7)
_ANSWER_S = 6.0
_PYTHON_S = 30.0
_READY_S = 60.0
#: Lines under way without an answer: with the next one they fit into a tty's 4096 bytes.
_WINDOW = 5
_LINE_BYTES = 700
#: The device has taken nothing for so long: it is gone.
_STALL_S = 30.0
_TRIES = 4
_INTERRUPT = b"\x03"


@dataclass(frozen=True, slots=True, kw_only=True)
class ConsolePlaced:
    """Where the agent is on the device, and on which line it was started.

    ``sent_bytes`` are those of the compressed agent that this run has sent.
    """

    path: str
    state: str
    python: str
    tty: str
    is_root: bool
    sent_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ConsoleWishes:
    """What the device is to do with the agent.

    Attributes:
        python: Interpreter there.
        state: State folder there; None for the default.
        baud: The line's speed, in bits a second.
        rtscts: Whether the line has hardware flow control.
        unit: Text of the systemd unit to install; None starts the agent and installs nothing.
    """

    python: str
    state: str | None
    baud: int
    rtscts: bool
    unit: str | None


def push_through_shell(
    screen: Screen, agent: AgentImage, wishes: ConsoleWishes, on_progress: OnProgress
) -> ConsolePlaced:
    """Send the agent through the shell on ``screen`` and start it on that line.

    Raises:
        BootstrapError: The device cannot run it, or stops answering; the text says at what.
        ChannelError: The line itself fails.
    """
    _plain_shell(screen)
    try:
        _check_python(screen, wishes.python)
    except BootstrapError:
        # that shell shows neither prompt nor echo: a new login is better than that
        with contextlib.suppress(ChannelError):
            screen.line.write(_INTERRUPT + b" exit\r", timeout_s=_ANSWER_S)
        raise
    token = secrets.token_hex(16)
    packed = zlib.compress(agent.data, 9)
    header = split_pieces(
        console_header(
            {
                "modules": _MODULES,
                "state": wishes.state,
                "sha256": agent.sha256,
                "size": len(agent.data),
                "packed": len(packed),
                "unit": wishes.unit,
                "baud": wishes.baud,
                "rtscts": wishes.rtscts,
            }
        )
    )
    talk = _Talk(screen, token, wishes.baud)
    talk.start(loader_lines(wishes.python, token=token, header_pieces=len(header)))
    talk.send([*script_pieces(), *header])
    have, crc = _numbers(talk.ask("HAVE"))
    if not 0 <= have <= len(packed) or (
        have < len(packed) and zlib.crc32(packed[:have]) != crc
    ):
        have = 0  # of another agent, or spoilt: from the beginning
    talk.send([str(have).encode("ascii")])

    def note(sent: int) -> None:
        done = min(len(packed), have + sent * PIECE_BYTES)
        on_progress(Progress(step="send agent", done=done, total=len(packed), unit="B"))

    note(0)
    talk.send(split_pieces(packed[have:]), on_taken=note)
    note(len(packed))
    run = talk.ask("RUN")
    if len(run.words) != 5:
        raise BootstrapError(f"cannot start the agent on {screen.line.name}: it said {run}")
    screen.forget()
    talk.send([b"go"])
    if wishes.unit is None:
        _wait_until_ready(screen)
    path, state, python, tty, uid = run.words
    return ConsolePlaced(
        path=str(path),
        state=str(state),
        python=str(python),
        tty=str(tty),
        is_root=uid == 0,
        sent_bytes=len(packed) - have,
    )


def _numbers(marker: Marker) -> tuple[int, int]:
    words = [word if isinstance(word, int) else -1 for word in (*marker.words, -1, -1)]
    return words[0], words[1]


def _plain_shell(screen: Screen) -> None:
    """Replace whatever shell it is by a POSIX one without prompt and echo.

    Raises:
        BootstrapError: There is none.
    """
    for _ in range(_TRIES):
        screen.send(b" exec /bin/sh\r")
        screen.settle(0.5, timeout_s=_ANSWER_S)
        screen.send(b" PS1= PS2= PS4=; unset HISTFILE; stty -echo 2>/dev/null\r")
        screen.settle(0.3, timeout_s=_ANSWER_S)
        if is_shell(screen):
            return
        screen.send(_INTERRUPT)
    raise BootstrapError(
        f"cannot install the agent over {screen.line.name}: the login's shell starts no "
        f"/bin/sh; the line shows: {screen.tail}",
        hint="log in as a user with an ordinary shell",
        screen=screen.tail,
    )


def _ask_shell(screen: Screen, command: str, timeout_s: float) -> tuple[int, str] | None:
    """Run a command and give its status and output; None where no whole answer came."""
    token = secrets.token_hex(8)
    ends = re.compile(f"EDGESDK-{token}-([0-9]{{1,3}})-")
    begins = f"EDGESDK-{token}-begin"
    line = f' echo EDGE"SDK"-{token}-begin; {command}; echo EDGE"SDK"-{token}-$?-'
    screen.send(line.encode("ascii") + b"\r")
    found = screen.wait_for(ends.search, timeout_s=timeout_s)
    if found is None:
        return None
    return int(found[1]), screen.text.split(begins)[-1].partition(f"EDGESDK-{token}")[0].strip()


def _check_python(screen: Screen, python: str) -> None:
    where = screen.line.name
    ask = 'import sys; print("is %d.%d.%d." % sys.version_info[:3])'
    command = f"{shlex.quote(python)} -E -s -S -c '{ask}'"
    for _ in range(_TRIES):
        answer = _ask_shell(screen, command, _PYTHON_S)
        if answer is None:
            screen.send(_INTERRUPT + b"\r")
            continue
        status, text = answer
        version = re.search(r"is (\d{1,3})\.(\d{1,3})\.(\d{1,3})\.", text)
        if version is not None:
            found = (int(version[1]), int(version[2]))
            if found >= _OLDEST:
                return
            raise BootstrapError(
                f"cannot start the agent on {where}: its Python is "
                f"{'.'.join(version.groups())} (3.7 or newer)",
                hint="name a newer one that is there: serial://...?python=/usr/bin/python3.8",
                python=".".join(version.groups()),
            )
        if status in (126, 127):
            seen = _ask_shell(screen, "ls /usr/bin/python* /usr/local/bin/python*", _ANSWER_S)
            others = re.findall(r"/[\w/.+-]*/python[\d.]*(?=\s|\Z)", seen[1] if seen else "")
            there = f"; there are {', '.join(sorted(set(others))[:6])}" if others else ""
            lacks = "there is no" if status == 127 else "this user may not run"
            raise BootstrapError(
                f"cannot start the agent on {where}: {lacks} {python}{there}",
                hint="install one there (`apt-get install python3`), or name it: "
                "serial://...?python=/usr/bin/python3.8",
                status=status,
            )
        if status != 0:
            raise BootstrapError(
                f"cannot start the agent on {where}: {python} ends with {status}: "
                f"{screen.tail}",
                hint="does that interpreter run there? another: serial://...?python=PATH",
                status=status,
            )
    raise BootstrapError(
        f"cannot start the agent on {where}: the shell does not answer; the line "
        f"shows: {screen.tail}",
        hint="is the line quiet? kernel messages can be held: `dmesg -n 1`",
        screen=screen.tail,
    )


class _Talk:
    """Pieces to the device, and its markers back."""

    def __init__(self, screen: Screen, token: str, baud: int) -> None:
        self._screen = screen
        self._name = screen.line.name
        self._token = token
        self._reader = MarkerReader(token)
        self._next = 0
        #: A whole window on its way, and the answers.
        self._repeat_s = 1.0 + 2.0 * _WINDOW * _LINE_BYTES * 10.0 / baud
        self._kept: Marker | None = None

    def start(self, lines: list[bytes]) -> None:
        """Type the loader until it answers."""
        for _ in range(_TRIES):
            self._screen.forget()
            for line in lines:
                self._screen.line.write(line + b"\r", timeout_s=_ANSWER_S)
            deadline = time.monotonic() + _PYTHON_S
            while time.monotonic() < deadline and "Error" not in self._screen.text:
                marker = self._hear(1.0)
                if marker is not None and marker.stage == "LOADER":
                    return
                self._screen.line.write(b"\n", timeout_s=_ANSWER_S)  # its word may be lost
            # a byte of it was lost: the shell waits for a quote, or Python has refused it
            self._screen.line.write(_INTERRUPT, timeout_s=_ANSWER_S)
            self._screen.settle(0.5, timeout_s=_ANSWER_S)
        raise BootstrapError(
            f"cannot install the agent over {self._name}: Python does not take the loader; "
            f"the line shows: {self._screen.tail}",
            hint="does the line lose bytes? try a lower speed there and here",
            screen=self._screen.tail,
        )

    def send(self, pieces: list[bytes], on_taken: object = None) -> None:
        """Send pieces until the device has them all."""
        first, end = self._next, self._next + len(pieces)
        base = sent = first
        progressed = time.monotonic()
        repeat_at = progressed + self._repeat_s
        repeated = -1
        while base < end:
            while sent < min(end, base + _WINDOW):
                self._screen.line.write(
                    piece_line(sent, pieces[sent - first]), timeout_s=_STALL_S
                )
                sent += 1
            marker = self._hear(max(0.0, repeat_at - time.monotonic()))
            now = time.monotonic()
            if marker is not None and marker.stage in ("GOT", "BAD"):
                told = _numbers(marker)[0]
                if base < told <= sent:
                    base, progressed = told, now
                    repeat_at = now + self._repeat_s
                    if callable(on_taken):
                        on_taken(base - first)
                if marker.stage == "BAD" and told == base != repeated:
                    sent = repeated = base
            elif marker is not None:
                self._kept = marker
            if now >= repeat_at:
                sent, repeated = base, -1
                repeat_at = now + self._repeat_s
            if now - progressed > _STALL_S:
                raise self._stalled()
        self._next = end

    def ask(self, stage: str) -> Marker:
        """Wait for the script's next stage, asking again where its word was lost."""
        deadline = time.monotonic() + _STALL_S
        marker, self._kept = self._kept, None
        while marker is None or marker.stage != stage:
            if time.monotonic() > deadline:
                raise self._stalled()
            marker = self._hear(self._repeat_s)
            if marker is None:
                self._screen.line.write(b"\n", timeout_s=_ANSWER_S)
        return marker

    def _hear(self, timeout_s: float) -> Marker | None:
        deadline = time.monotonic() + timeout_s
        while True:
            marker = self._reader.feed(b"")
            if marker is None:
                marker = self._reader.feed(self._screen.take(deadline - time.monotonic()))
            if marker is not None and marker.stage == "FAIL":
                raise self._failed(marker)
            if marker is not None or time.monotonic() >= deadline:
                return marker

    def _failed(self, marker: Marker) -> BootstrapError:
        stage, _, reason = (*marker.words, "", "", "")[:3]
        hints = {
            "modules": "install the whole of Python: `apt-get install python3`",
            "service": "log in as root for that, or leave --service out",
        }
        return BootstrapError(
            f"cannot install the agent over {self._name}: stage {stage}: {reason}",
            hint=hints.get(
                str(stage), "may that user write to the state folder, and is there room?"
            ),
            stage=stage,
        )

    def _stalled(self) -> BootstrapError:
        return BootstrapError(
            f"cannot install the agent over {self._name}: the device took no piece for "
            f"{_STALL_S:g} s; the line shows: {self._screen.tail}",
            hint="is the cable still in? the next run continues where this one stopped",
            screen=self._screen.tail,
        )


def _wait_until_ready(screen: Screen) -> None:
    """Wait for the agent's own word, on the line that it takes over with it.

    Raises:
        BootstrapError: It did not start.
    """
    said = re.compile(r"edge-agent: (ready|failed at stage [^\n]+\n|[^\n]*error[^\n]*\n)")
    found = screen.wait_for(said.search, timeout_s=_READY_S)
    if found is None or found[1] != "ready":
        why = found[1].strip() if found is not None else f"it says nothing: {screen.tail}"
        raise BootstrapError(
            f"cannot start the agent on {screen.line.name}: {why}",
            hint="does one run there already? `systemctl --user stop edgesdk-agent` ends it",
            screen=screen.tail,
        )
