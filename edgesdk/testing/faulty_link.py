"""A link with a rate, latency and faults, between two ttys or two sockets.

A pseudo terminal has no speed, takes 13 kB before it blocks and loses nothing, so what works
over one proves little about a cable. This link is one whose rate, damage and cuts are as told,
the same ones for the same seed, and which counts everything it does.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import socket
import subprocess
import sys
import threading
import time
import tty
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

from edgesdk.transport.processes import die_with_parent

__all__ = ["FaultyLink", "LineFaults", "LinkCounts", "Way"]

Way = Literal["to_device", "to_host"]
_BOTH: tuple[Way, ...] = ("to_device", "to_host")
_BITS_PER_BYTE = 10
_ANSWER_S = 10.0
_QUIET_S = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class LineFaults:
    """What goes wrong in one direction; each probability is per byte.

    Bursts follow Gilbert and Elliott: the line is good or bad, and in the bad state bytes are
    spoilt with a probability of their own.

    Attributes:
        drop: A byte is lost.
        flip: One bit of it arrives turned over.
        duplicate: It arrives twice.
        stall: The line stands still before it.
        stall_s: For how long, in seconds.
        burst_begins: A good line turns bad.
        burst_ends: A bad one turns good again.
        burst_error: A byte is spoilt while the line is bad.
    """

    drop: float = 0.0
    flip: float = 0.0
    duplicate: float = 0.0
    stall: float = 0.0
    stall_s: float = 0.0
    burst_begins: float = 0.0
    burst_ends: float = 1.0
    burst_error: float = 0.0

    @classmethod
    def errors(cls, rate: float) -> Self:
        """Spoil a share ``rate`` of the bytes: half are lost, half have a bit turned over."""
        return cls(drop=rate / 2, flip=rate / 2)


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkCounts:
    """What one direction has done so far, in bytes (stalls: in stalls).

    Attributes:
        sent: Bytes the sender's end took.
        delivered: Bytes that came out at the other one.
        dropped: Bytes lost to faults.
        flipped: Bytes that arrived with a bit turned over.
        duplicated: Bytes that arrived twice.
        stalled: How often the line stood still.
        garbled: Bytes spoilt because the ends had different speeds, or one too fast.
        overrun: Bytes lost because the receiver did not read.
        cut: Bytes lost while the link was cut.
    """

    sent: int
    delivered: int
    dropped: int
    flipped: int
    duplicated: int
    stalled: int
    garbled: int
    overrun: int
    cut: int

    @property
    def errors(self) -> int:
        """Bytes that were spoilt one by one."""
        return self.dropped + self.flipped + self.duplicated


class FaultyLink:
    """A relay, in a process of its own, between ``host`` and ``device``.

    Each direction has a transmit clock of ten bits a byte. The sender is read only while its
    FIFO has room, so it feels the line's rate; a receiver that does not read loses bytes. With
    ttys, a byte travels at the speed that the sender's end is set to, and is garbled when the
    receiver's end is set to another one.

    Args:
        kind: What it joins: ``"tty"`` gives `host_path` and `device_path`, ``"socket"`` gives
            `host_socket` and `device_socket`.
        baud: The rate in bits a second; None takes what the ttys are set to (sockets: none).
        holds_baud: Ttys set faster than this are garbled, as by a cable that is too long.
        latency_s: How long a byte is under way, each way.
        return_latency_s: How much longer on its way to the host: USB adapters wait up to 16 ms.
        to_device: Faults on the way to the device.
        to_host: Faults on the way to the host.
        fifo_bytes: What the sender's UART and driver hold.
        seed: Of all that is random.

    Example:
        >>> from edgesdk.testing import FaultyLink, LineFaults
        >>> with FaultyLink(baud=115_200, to_device=LineFaults.errors(1e-4)) as link:
        ...     url = f"serial://{link.host_path}?baud=115200"
    """

    def __init__(
        self,
        *,
        kind: Literal["tty", "socket"] = "tty",
        baud: int | None = None,
        holds_baud: int | None = None,
        latency_s: float = 0.001,
        return_latency_s: float = 0.0,
        to_device: LineFaults | None = None,
        to_host: LineFaults | None = None,
        fifo_bytes: int = 4096,
        seed: int = 1,
    ) -> None:
        self._lock = threading.Lock()
        self._kept: list[int] = []
        self._sockets: list[socket.socket] = []
        self._process: subprocess.Popen[bytes] | None = None
        ends = [self._make_end(kind) for _ in _BOTH]
        ours, theirs = socket.socketpair()
        self._control = ours
        self._lines = ours.makefile("rwb", 0)
        ours.settimeout(_ANSWER_S)
        command = [sys.executable, "-I", "-S", str(Path(__file__).with_name("faulty_relay.py"))]
        with theirs:
            passed = (*ends, theirs.fileno())
            self._process = subprocess.Popen(
                [*command, *map(str, passed)],
                pass_fds=passed,
                # a relay that outlived a killed test would keep its ttys
                preexec_fn=die_with_parent,  # noqa: PLW1509 - one call that takes no lock
            )
        for descriptor in ends:
            os.close(descriptor)
        self._ask(
            {
                "baud": baud,
                "holds_baud": holds_baud,
                "latency_s": latency_s,
                "return_latency_s": return_latency_s,
                "fifo_bytes": fifo_bytes,
                "seed": seed,
                "is_tty": kind == "tty",
                "to_device": asdict(to_device or LineFaults()),
                "to_host": asdict(to_host or LineFaults()),
            }
        )

    def _make_end(self, kind: str) -> int:
        """Give the relay's descriptor of a new end; the other one is kept for the test."""
        if kind == "socket":
            mine, its = socket.socketpair()
            self._sockets.append(mine)
            return its.detach()
        master, slave = os.openpty()
        tty.setraw(slave)
        # kept open: a pty whose last slave was closed gives errors from then on
        self._kept.append(slave)
        return master

    @property
    def host_path(self) -> str:
        """The tty at the host's end."""
        return os.ttyname(self._kept[0])

    @property
    def device_path(self) -> str:
        """The tty at the device's end."""
        return os.ttyname(self._kept[1])

    @property
    def host_socket(self) -> socket.socket:
        """The socket at the host's end."""
        return self._sockets[0]

    @property
    def device_socket(self) -> socket.socket:
        """The socket at the device's end."""
        return self._sockets[1]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the relay and give both ends back; may be repeated."""
        if self._process is None:
            return
        self._lines.close()
        self._control.close()
        try:
            self._process.wait(timeout=5.0)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None
        for descriptor in self._kept:
            os.close(descriptor)
        for end in self._sockets:
            end.close()
        self._kept, self._sockets = [], []

    def _ask(self, order: Mapping[str, Any]) -> dict[str, Any]:
        with self._lock:
            self._lines.write(json.dumps(order).encode() + b"\n")
            answer = self._lines.readline()
        if not answer:
            raise RuntimeError("the relay of a faulty link has ended")
        read: dict[str, Any] = json.loads(answer)
        return read

    def counts(self, way: Way) -> LinkCounts:
        """What one direction has done so far."""
        return LinkCounts(**self._ask({"do": "tell"})["counts"][way])

    @property
    def is_cut(self) -> bool:
        """Say whether every byte gets lost."""
        return bool(self._ask({"do": "tell"})["is_cut"])

    def cut(self) -> None:
        """Pull the cable: every byte gets lost from now on, in both directions."""
        self._ask({"do": "cut"})

    def cut_after(self, count: int, *, way: Way = "to_device") -> None:
        """Pull the cable once ``count`` more bytes went that way."""
        self._ask({"do": "cut_after", "ways": [way], "bytes": count})

    def mend(self) -> None:
        """Plug it in again."""
        self._ask({"do": "mend"})

    def set_faults(self, faults: LineFaults, *, ways: Iterable[Way] = _BOTH) -> None:
        """Change what goes wrong from now on."""
        self._ask({"do": "faults", "ways": list(ways), "faults": asdict(faults)})

    def say(self, data: bytes, *, way: Way = "to_host") -> None:
        """Print on the line as a console does, whatever travels on it."""
        self._ask({"do": "say", "ways": [way], "text": data.decode("latin-1")})

    def measure(self, *, seconds: float = 1.0) -> float:
        """Give the rate that the line really has, as a share of the one it should have.

        Sends bytes for about so long from the host's tty, set raw, to the device's. Where this
        is off by more than a hundredth the machine is too busy for what is measured on it.
        """
        import termios

        reading = os.open(self.device_path, os.O_RDONLY | os.O_NOCTTY)
        writing = os.open(self.host_path, os.O_WRONLY | os.O_NOCTTY)
        try:
            constant = termios.tcgetattr(writing)[5]
            names = {getattr(termios, n): n for n in dir(termios) if n[:1] == "B"}
            per_s = int(names[constant][1:]) / _BITS_PER_BYTE
            total = int(per_s * seconds)
            feeder = threading.Thread(target=_write_all, args=(writing, total), daemon=True)
            feeder.start()
            got, began, ended = -1, 0.0, 0.0
            # bytes that got lost, because this end was too late, are not waited for
            while got < total and select.select([reading], [], [], _QUIET_S)[0]:
                count, ended = len(os.read(reading, 1 << 16)), time.monotonic()
                if got < 0:
                    got, began, total = 0, ended, total - count
                else:
                    got += count
            feeder.join(5.0)
            return got / per_s / max(1e-9, ended - began)
        finally:
            os.close(reading)
            os.close(writing)


def _write_all(descriptor: int, total: int) -> None:
    data = bytes(1024)
    with contextlib.suppress(OSError):
        while total > 0:
            total -= os.write(descriptor, data[: min(total, len(data))])
