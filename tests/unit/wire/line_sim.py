"""Two ends of a line and the wire between them, on a clock of their own: nothing waits."""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable

from edgesdk.wire.arq import Arq

TTY_BYTES = 4096


class Wire:
    """One direction: a transmit clock, latency, and errors from a seed."""

    def __init__(self, *, latency_s: float, error_rate: float, seed: int) -> None:
        self.latency_s = latency_s
        self.error_rate = error_rate
        self.cut = False
        self.free_at = 0.0
        self.bytes = self.errors = 0
        self.keep: Callable[[bytes], bytes] | None = None
        self._random = random.Random(seed)
        self._next_error = self._gap()
        self._arriving: list[tuple[float, int, bytes, int]] = []
        self._count = 0

    def _gap(self) -> int:
        if not self.error_rate:
            return 1 << 60
        return int(self._random.expovariate(self.error_rate))

    def send(self, data: bytes, baud: int, now: float) -> None:
        self.free_at = max(now, self.free_at) + len(data) * 10 / baud
        self.bytes += len(data)
        data = self._spoil(data)
        if self.keep is not None:
            data = self.keep(data)
        if not self.cut and data:
            self._count += 1
            heapq.heappush(
                self._arriving, (self.free_at + self.latency_s, self._count, data, baud)
            )

    def _spoil(self, data: bytes) -> bytes:
        if self._next_error >= len(data):
            self._next_error -= len(data)
            return data
        out = bytearray()
        for byte in data:
            if self._next_error > 0:
                self._next_error -= 1
                out.append(byte)
                continue
            self._next_error = self._gap()
            self.errors += 1
            if self._random.random() < 0.5:
                out.append(byte ^ 1 << self._random.randrange(8))
        return bytes(out)

    def next_at(self) -> float | None:
        return self._arriving[0][0] if self._arriving else None

    def arrived(self, now: float, baud: int) -> bytes:
        out = b""
        while self._arriving and self._arriving[0][0] <= now:
            _, _, data, sent_at_baud = heapq.heappop(self._arriving)
            if sent_at_baud != baud:
                data = self._random.randbytes(len(data) * min(4, baud // sent_at_baud + 1))
            out += data
        return out


class End:
    def __init__(self, arq: Arq, out: Wire, back: Wire) -> None:
        self.arq, self.out, self.back = arq, out, back
        self.baud = arq.base_baud
        self.to_send = b""
        self.got = bytearray()
        self.alive = True
        self.max_baud = 1 << 30


class Sim:
    """Runs both ends until a condition holds."""

    def __init__(
        self,
        *,
        baud: int = 921_600,
        error_rate: float = 0.0,
        latency_s: float = 0.001,
        back_latency_s: float = 0.001,
        seed: int = 1,
        rates: tuple[int, ...] = (),
    ) -> None:
        self.now = 100.0
        self.random = random.Random(seed)
        self.text = bytearray()
        self.down = Wire(latency_s=latency_s, error_rate=error_rate, seed=seed)
        self.up = Wire(latency_s=back_latency_s, error_rate=error_rate, seed=seed + 1)
        self.rates, self.baud = rates, baud
        self.host = End(self.make(is_host=True), self.down, self.up)
        self.agent = End(self.make(is_host=False), self.up, self.down)

    def make(self, *, is_host: bool) -> Arq:
        return Arq(
            is_host=is_host,
            baud=self.baud,
            rates=self.rates,
            new_token=self.random.randbytes,
            on_text=None if is_host else self.text.extend,
        )

    def restart_agent(self) -> None:
        self.agent.arq = self.make(is_host=False)
        self.agent.baud = self.baud
        self.agent.to_send = b""

    def run(self, until: Callable[[], bool], limit_s: float) -> bool:
        """Let time pass until ``until()``; False when ``limit_s`` passed first."""
        end = self.now + limit_s
        while not until():
            if self.now >= end:
                return False
            self.step(end)
        return True

    def step(self, end: float) -> None:
        wakes = [end]
        for one in (self.host, self.agent):
            if not one.alive:
                one.back.arrived(self.now, one.baud)
                continue
            data = one.back.arrived(self.now, one.baud)
            if data:
                one.arq.feed(data, self.now)
            one.arq.tick(self.now)
            if one.arq.baud != one.baud:
                one.baud = one.arq.baud
            while one.to_send and one.arq.sender.room:
                one.to_send = one.to_send[one.arq.put(one.to_send[:65536]) :]
            one.got += one.arq.get()
            # a tty takes some thousand bytes, then the writer waits
            waiting_s = max(0.0, one.out.free_at - self.now)
            if waiting_s * one.baud / 10 < TTY_BYTES:
                out = one.arq.take(self.now)
                if out:
                    one.out.send(out, min(one.baud, one.max_baud), self.now)
                wake = one.arq.wake_at(self.now)
                if wake is not None:
                    wakes.append(max(wake, self.now + 1e-4))
            else:
                wakes.append(one.out.free_at - TTY_BYTES * 10 / one.baud / 2)
        for wire in (self.down, self.up):
            at = wire.next_at()
            if at is not None:
                wakes.append(at)
        self.now = max(self.now + 1e-6, min(wakes))
