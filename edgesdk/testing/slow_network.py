"""Two network namespaces joined by a slow link: real IP packets, delayed, paced and dropped.

A proxy in between would not do: it acknowledges data itself, so TCP never meets the delay. Here
each namespace has a TUN device, and a relay process holds every packet for its time. Run as a
program this module is that relay.
"""

from __future__ import annotations

import argparse
import array
import collections
import contextlib
import fcntl
import os
import random
import select
import shutil
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from edgesdk.transport.processes import die_with_parent

__all__ = ["SlowNetwork"]

_PROGRAM = (sys.executable, "-P", __file__)
_TUN = Path("/dev/net/tun")
_NEAR, _FAR = "10.231.77.1", "10.231.77.2"
# linux/if_tun.h
_TUNSETIFF = 0x400454CA
_IFF_TUN = 0x0001
_IFF_NO_PI = 0x1000
#: Large packets, so that a relay in Python keeps up with a hundred megabytes a second.
_MTU_BYTES = 9000
_QUEUE_PACKETS = 10_000
#: What a paced link buffers before it drops, in seconds of its rate.
_BUFFER_S = 0.1
_BURST_PACKETS = 64


class SlowNetwork:
    """A network of two hosts; leaving the ``with`` block takes it away.

    Args:
        round_trip_s: How long a packet and its answer take, without the pacing.
        bits_per_s: The rate of the link in each direction; None for as fast as it goes.
        loss: The share of packets that are dropped.
        seed: Chooses which ones.
    """

    near_address = _NEAR
    far_address = _FAR

    def __init__(
        self,
        *,
        round_trip_s: float,
        bits_per_s: float | None = None,
        loss: float = 0.0,
        seed: int = 1,
    ) -> None:
        self._arguments = [
            f"--delay={round_trip_s / 2}",
            f"--rate={bits_per_s or 0}",
            f"--loss={loss}",
            f"--seed={seed}",
        ]
        self._relay: subprocess.Popen[str] | None = None
        self._near = self._far = 0

    @staticmethod
    def why_not() -> str | None:
        """Say why there can be no such network here, or None."""
        missing = [tool for tool in ("ip", "unshare", "nsenter") if not shutil.which(tool)]
        if missing:
            return f"there is no {missing[0]}: install iproute2 and util-linux"
        if os.geteuid() != 0:
            return "network namespaces are for root"
        if not _TUN.exists():
            return f"there is no {_TUN}: load the kernel module tun"
        done = subprocess.run(
            ["unshare", "--net", "true"],  # noqa: S607 - found by PATH above
            capture_output=True,
            text=True,
            check=False,
        )
        return done.stderr.strip() or None if done.returncode else None

    def __enter__(self) -> Self:
        command = [*_PROGRAM, *self._arguments]
        self._relay = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            text=True,
            preexec_fn=die_with_parent,  # noqa: PLW1509 - one call that takes no lock
        )
        assert self._relay.stdout is not None
        words = self._relay.stdout.readline().split()
        if len(words) != 3:
            self._relay.wait(10)
            raise RuntimeError("the slow network does not start; its words are on stderr")
        self._near, self._far = int(words[1]), int(words[2])
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._relay is not None
        self._relay.send_signal(signal.SIGTERM)
        self._relay.wait(10)
        if self._relay.stdout is not None:
            self._relay.stdout.close()

    def near(self, command: Sequence[str] = ()) -> list[str]:
        """Give the command line that runs ``command`` on the near host."""
        return ["nsenter", "--net", "--target", str(self._near), *command]

    def far(self, command: Sequence[str] = ()) -> list[str]:
        """Give the command line that runs ``command`` on the far host."""
        return ["nsenter", "--net", "--target", str(self._far), *command]


class _Direction:
    """Packets from one device to the other, in order, each with the time it is due."""

    def __init__(self, reading: int, writing: int, options: argparse.Namespace) -> None:
        self.reading = reading
        self._writing = writing
        self._delay_s: float = options.delay
        self._byte_s = 8 / options.rate if options.rate else 0.0
        self._loss: float = options.loss
        self._rng = random.Random(f"{options.seed} {reading}")  # noqa: S311 - a seed is the point
        self._waiting: collections.deque[tuple[float, bytes]] = collections.deque()
        self._free_s = 0.0

    def take(self) -> None:
        """Read what the device has sent."""
        with contextlib.suppress(BlockingIOError):
            for _ in range(_BURST_PACKETS):
                packet = os.read(self.reading, 1 << 16)
                now = time.monotonic()
                if self._loss and self._rng.random() < self._loss:
                    continue
                if self._free_s - now > _BUFFER_S:
                    continue
                self._free_s = max(now, self._free_s) + len(packet) * self._byte_s
                self._waiting.append((self._free_s + self._delay_s, packet))

    def give(self) -> float | None:
        """Write what is due; say when more is."""
        while self._waiting:
            due, packet = self._waiting[0]
            if due > time.monotonic():
                return due
            self._waiting.popleft()
            with contextlib.suppress(OSError):
                os.write(self._writing, packet)
        return None


def _open_tun(address: str, peer: str) -> int:
    fd = os.open(_TUN, os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(fd, _TUNSETIFF, struct.pack("16sH22x", b"slow0", _IFF_TUN | _IFF_NO_PI))
    for words in (
        f"link set slow0 mtu {_MTU_BYTES} txqueuelen {_QUEUE_PACKETS}",
        f"address add {address} peer {peer} dev slow0",
        "link set slow0 up",
        "link set lo up",
    ):
        subprocess.run(["ip", *words.split()], check=True)  # noqa: S607 - PATH has it
    return fd


def _host(address: str, peer: str, descriptor: int) -> None:
    """Be a host: open a device, hand it to the relay, keep the namespace until the end."""
    link = socket.socket(fileno=descriptor)
    fd = _open_tun(address, peer)
    socket.send_fds(link, [b"+"], [fd])
    os.close(fd)
    link.recv(1)


def _start_host(address: str, peer: str) -> tuple[int, int, socket.socket]:
    ours, theirs = socket.socketpair()
    command = ["unshare", "--net", *_PROGRAM]
    command += [f"--host={address}", f"--peer={peer}", f"--descriptor={theirs.fileno()}"]
    child = subprocess.Popen(command, pass_fds=[theirs.fileno()], stdout=subprocess.DEVNULL)
    theirs.close()
    room = array.array("i").itemsize
    _, fds, _, _ = socket.recv_fds(ours, 1, room)
    if not fds:
        raise SystemExit(f"no network device for {address}")
    return child.pid, fds[0], ours


def _relay(options: argparse.Namespace) -> None:
    near_pid, near, _keep_near = _start_host(_NEAR, _FAR)
    far_pid, far, _keep_far = _start_host(_FAR, _NEAR)
    sys.stdout.write(f"ready {near_pid} {far_pid}\n")
    sys.stdout.flush()
    ways = [_Direction(near, far, options), _Direction(far, near, options)]
    while True:
        due = [when for way in ways if (when := way.give()) is not None]
        wait_s = max(0.0, min(due) - time.monotonic()) if due else None
        ready, _, _ = select.select([way.reading for way in ways], [], [], wait_s)
        for way in ways:
            if way.reading in ready:
                way.take()


def _main() -> None:
    parser = argparse.ArgumentParser()
    for name in ("delay", "rate", "loss"):
        parser.add_argument(f"--{name}", type=float, default=0.0)
    parser.add_argument("--seed", default="1")
    parser.add_argument("--host")
    parser.add_argument("--peer")
    parser.add_argument("--descriptor", type=int)
    options = parser.parse_args()
    if options.host:
        _host(options.host, options.peer, options.descriptor)
    else:
        signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
        _relay(options)


if __name__ == "__main__":
    _main()
