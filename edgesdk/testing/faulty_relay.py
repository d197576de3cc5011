"""The process behind `edgesdk.testing.FaultyLink`: carries bytes, late, at a rate, and damaged.

A process of its own, since a test that computes would otherwise slow the line down. It is run
as a file, with two descriptors to join and one for commands: lines of JSON, answered by such.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import random
import select
import socket
import struct
import sys
import termios
import time
from collections import deque
from typing import Any

__all__ = ["COUNTS", "FAULTS", "main"]

_BITS_PER_BYTE = 10
_UNLIMITED_BPS = 10**10
#: A slice of the line arrives at once; so much of it, in seconds.
_SLICE_S = 0.0005
#: Bytes that a sender had ready all along do not wait for this process to look, up to so late.
_LOOKED_LATE_S = 1.0
_COUNT = struct.Struct("i")
_TCGETS2 = 0x802C542A
_TERMIOS2 = struct.Struct("IIIIB19sII")
_NEVER = 1 << 60

#: Faults of one direction and what they are when nothing is said.
FAULTS: dict[str, float] = {
    "drop": 0.0,
    "flip": 0.0,
    "duplicate": 0.0,
    "stall": 0.0,
    "stall_s": 0.0,
    "burst_begins": 0.0,
    "burst_ends": 1.0,
    "burst_error": 0.0,
}
#: What is counted of each direction.
COUNTS = (
    *("sent", "delivered", "dropped", "flipped", "duplicated"),
    *("stalled", "garbled", "overrun", "cut"),
)


class Direction:
    """One way: a transmit clock, latency, and faults from a seed."""

    def __init__(self, source: int, sink: int, options: dict[str, Any], seed: str) -> None:
        self.source, self.sink = source, sink
        self.baud: int | None = options["baud"]
        self.holds_baud: int | None = options["holds_baud"]
        self.latency_s = float(options["latency_s"])
        self.fifo_bytes = int(options["fifo_bytes"])
        self.is_tty = bool(options["is_tty"])
        self.counts = dict.fromkeys(COUNTS, 0)
        self.is_cut = False
        self.cut_at = _NEVER
        self.is_open = True
        self._random = random.Random(seed)  # noqa: S311 - it has to be the same on each run
        self._clock = 0.0
        self._has_more = False
        self._arriving: deque[tuple[float, bytes, int]] = deque()
        self._in_burst = False
        self.set_faults({**FAULTS, **options["faults"]})

    def set_faults(self, faults: dict[str, float]) -> None:
        self.faults = faults
        self._next_error, self._next_turn = self._error_gap(), self._turn_gap()

    # time

    def speed(self, descriptor: int) -> int:
        """The speed of an end in bits a second: what its tty was set to, or the link's own."""
        if self.is_tty:
            with contextlib.suppress(OSError):
                raw = fcntl.ioctl(descriptor, _TCGETS2, bytes(_TERMIOS2.size))
                return int(_TERMIOS2.unpack(raw)[-1])
        return self.baud or _UNLIMITED_BPS

    def bytes_per_s(self) -> float:
        return (self.baud or self.speed(self.source)) / _BITS_PER_BYTE

    def room(self, now: float) -> int:
        """How many bytes the sender's UART takes now."""
        waiting = max(0.0, self._clock - now) * self.bytes_per_s()
        return max(0, int(self.fifo_bytes - waiting))

    def room_at(self) -> float:
        """When a half of its buffer will be free."""
        return self._clock - self.fifo_bytes / 2 / self.bytes_per_s()

    def next_at(self) -> float | None:
        return self._arriving[0][0] if self._arriving else None

    # bytes

    def take(self, now: float, room: int) -> None:
        try:
            data = os.read(self.source, room)
        except BlockingIOError:
            self._has_more = False
            return
        except OSError:
            data = b""
        if not data:
            self.is_open = False
            return
        self.counts["sent"] += len(data)
        per_s = self.bytes_per_s()
        late_by = _LOOKED_LATE_S if self._has_more else 0.0
        self._clock = max(self._clock, now - late_by)
        self._has_more = self._is_waiting()
        speed = self.speed(self.source)
        size = max(1, int(per_s * _SLICE_S))
        for start in range(0, len(data), size):
            piece = data[start : start + size]
            if self._happens("stall", len(piece)):
                self.counts["stalled"] += 1
                self._clock += self.faults["stall_s"]
            self._clock += len(piece) / per_s
            self._arriving.append((self._clock + self.latency_s, piece, speed))

    def _is_waiting(self) -> bool:
        raw = fcntl.ioctl(self.source, termios.FIONREAD, bytes(_COUNT.size))
        return bool(_COUNT.unpack(raw)[0])

    def deliver(self, now: float) -> None:
        while self._arriving and self._arriving[0][0] <= now:
            _, piece, speed = self._arriving.popleft()
            before = self.counts["delivered"] + self.counts["cut"]
            if before + len(piece) > self.cut_at:
                keep = max(0, self.cut_at - before)
                self.put(self._spoil(piece[:keep], speed))
                piece, self.is_cut, self.cut_at = piece[keep:], True, _NEVER
            if self.is_cut:
                self.counts["cut"] += len(piece)
            else:
                self.put(self._spoil(piece, speed))

    def put(self, data: bytes) -> None:
        """Write what the sink takes; the rest is lost, as when a UART's reader is late."""
        written = 0
        if data:
            with contextlib.suppress(BlockingIOError, OSError):
                written = os.write(self.sink, data)
        self.counts["delivered"] += written
        self.counts["overrun"] += len(data) - written

    def _happens(self, fault: str, count: int) -> bool:
        rate = self.faults[fault]
        return rate > 0 and self._random.random() < 1 - (1 - rate) ** count

    def _error_gap(self) -> int:
        rate = self._error_rate()
        return _NEVER if rate <= 0 else int(self._random.expovariate(rate))

    def _turn_gap(self) -> int:
        rate = self.faults["burst_ends" if self._in_burst else "burst_begins"]
        return _NEVER if rate <= 0 else int(self._random.expovariate(rate))

    def _error_rate(self) -> float:
        if self._in_burst:
            return self.faults["burst_error"]
        return self.faults["drop"] + self.faults["flip"] + self.faults["duplicate"]

    def _spoil(self, data: bytes, speed: int) -> bytes:
        other = self.speed(self.sink)
        fastest = self.holds_baud or _UNLIMITED_BPS
        if speed != other or speed > fastest:
            self.counts["garbled"] += len(data)
            count = round(len(data) * min(4.0, other / max(1, speed)))
            return self._random.randbytes(count)
        if min(self._next_error, self._next_turn) >= len(data):
            self._next_error -= len(data)
            self._next_turn -= len(data)
            return data
        out = bytearray()
        for byte in data:
            if self._next_turn <= 0:
                self._in_burst = not self._in_burst
                self._next_error, self._next_turn = self._error_gap(), self._turn_gap()
            self._next_turn -= 1
            if self._next_error > 0:
                self._next_error -= 1
                out.append(byte)
            else:
                self._next_error = self._error_gap()
                out += self._damage(byte)
        return bytes(out)

    def _damage(self, byte: int) -> bytes:
        kinds = ("drop", "flip", "duplicate")
        weights = [self.faults[kind] for kind in kinds]
        if sum(weights) <= 0:  # in a burst on a line that is clean otherwise
            weights = [1, 1, 0]
        (kind,) = self._random.choices(kinds, weights)
        if kind == "drop":
            self.counts["dropped"] += 1
            return b""
        if kind == "duplicate":
            self.counts["duplicated"] += 1
            return bytes([byte, byte])
        self.counts["flipped"] += 1
        return bytes([byte ^ 1 << self._random.randrange(8)])


class Relay:
    """Both directions, and the commands."""

    def __init__(self, host: int, device: int, options: dict[str, Any]) -> None:
        seed = options["seed"]
        down = {**options, "faults": options["to_device"]}
        up = {**options, "faults": options["to_host"]}
        up["latency_s"] = options["latency_s"] + options["return_latency_s"]
        self.ways = {
            "to_device": Direction(host, device, down, f"{seed} to device"),
            "to_host": Direction(device, host, up, f"{seed} to host"),
        }

    def obey(self, order: dict[str, Any]) -> dict[str, Any]:
        what = order["do"]
        chosen = [self.ways[name] for name in order.get("ways", self.ways)]
        for way in chosen:
            if what == "cut":
                way.is_cut, way.cut_at = True, _NEVER
            elif what == "mend":
                way.is_cut, way.cut_at = False, _NEVER
            elif what == "cut_after":
                way.cut_at = way.counts["delivered"] + way.counts["cut"] + order["bytes"]
            elif what == "faults":
                way.set_faults({**FAULTS, **order["faults"]})
            elif what == "say":
                way.put(order["text"].encode("latin-1"))
        return {
            "counts": {name: way.counts for name, way in self.ways.items()},
            "is_cut": any(way.is_cut for way in self.ways.values()),
        }

    def step(self, now: float, control: int) -> bool:
        """Wait for something to do and do it; say whether a command came."""
        reading, wakes = [control], []
        for way in self.ways.values():
            if way.is_cut and way.cut_at == _NEVER:
                for other in self.ways.values():
                    other.is_cut = True  # a cable has both directions in it
            at = way.next_at()
            if at is not None:
                wakes.append(at)
            if not way.is_open:
                continue
            if way.room(now) > 0:
                reading.append(way.source)
            else:
                wakes.append(way.room_at())
        wait_s = max(0.0, min(wakes) - now) if wakes else None
        ready, _, _ = select.select(reading, [], [], wait_s)
        now = time.monotonic()
        for way in self.ways.values():
            if way.source in ready:
                way.take(now, way.room(now))
            way.deliver(now)
        return control in ready


def main() -> None:
    """Serve until the other end of the commands is closed."""
    host, device, control = (int(argument) for argument in sys.argv[1:4])
    for descriptor in (host, device):
        os.set_blocking(descriptor, False)
    with socket.socket(fileno=control) as commands, commands.makefile("rwb", 0) as lines:
        relay = Relay(host, device, json.loads(lines.readline()))
        lines.write(b"{}\n")
        while True:
            if relay.step(time.monotonic(), control):
                line = lines.readline()
                if not line:
                    return
                lines.write(json.dumps(relay.obey(json.loads(line))).encode() + b"\n")


if __name__ == "__main__":
    main()
