"""One session on a serial line, from the moment both ends have its keys. No I/O.

Its frames are data (`arq_send`), acknowledgements (`arq_receive`), speeds (`arq_rate`), and
``PROBE`` (transmission u16), ``FIN``, ``FIN_ACK``. It ends when an end hangs up, or when the
agent hears nothing for `DEAD_S`.
"""

from __future__ import annotations

import struct
from typing import List, Optional, Sequence, Tuple, Union

from edgesdk.wire.arq_frames import DELIMITER, open_frame, seal_frame
from edgesdk.wire.arq_rate import RATE_KINDS, SILENCE_S, AgentRate, HostRate
from edgesdk.wire.arq_receive import ACK, Receiver, read_ack
from edgesdk.wire.arq_send import TX_SPAN, Sender, pack_data
from edgesdk.wire.arq_watch import SpeedWatch

__all__ = ["DEAD_S", "LineSession"]

#: An agent that heard nothing for so long takes its host for gone. Hosts have no such limit:
#: what a session may wait for is the application's to say.
DEAD_S = 12.0
_KEEPALIVE_S = 1.0
_FINS = 4
_FIN_EVERY_S = 0.1
_PROBE, _FIN, _FIN_ACK = 0x81, 0x82, 0x83
_PROBE_BODY = struct.Struct(">BH")
_HEAD = struct.Struct(">I")


class LineSession:
    """What both ends keep of a session.

    Args:
        is_host: Whether this end began it.
        base_baud: The speed to go back to when nothing is heard, in bits a second.
        baud: The speed at which it begins.
        rates: Faster ones that both ends may try.
        keys: Of the way to the agent, and of the way to the host.
        sender: What sends its bytes.
        now: The time, in seconds.

    Attributes:
        ended: Why it is over, for people; empty while it is not.
        heard_fin: It is over because the other end hung up, and `farewell` is to be sent.
        receiver: What has its incoming bytes.
        is_closing: This end hung up.
    """

    def __init__(
        self,
        *,
        is_host: bool,
        base_baud: int,
        baud: int,
        rates: Sequence[int],
        keys: Tuple[int, int],
        sender: Sender,
        now: float,
    ) -> None:
        self.ended = ""
        self.heard_fin = False
        self.is_closing = False
        self.sender, self.receiver = sender, Receiver()
        self._is_host = is_host
        self._base_baud = base_baud
        self._send_key, self._receive_key = keys if is_host else keys[::-1]
        self._candidates = list(rates) if is_host else []
        self._rate: Union[HostRate, AgentRate] = (
            HostRate(base_baud, baud) if is_host else AgentRate(base_baud, baud, rates)
        )
        self._watch = SpeedWatch()
        self._last_heard = self._last_sent = now
        self._wants_probe = is_host
        self._fins = 0
        self._next_fin = now

    @property
    def baud(self) -> int:
        """The speed that the port should have now."""
        return self._rate.baud

    @property
    def is_trying(self) -> bool:
        """Say that the ends may not agree on the speed just now: what is spoilt is no noise."""
        return self._rate.is_trying

    def hang_up(self, now: float) -> None:
        """End it from this side."""
        self.is_closing, self._next_fin = True, now

    def farewell(self) -> List[bytes]:
        """What answers the other end's hanging up; told twice, since nobody will repeat it."""
        return [seal_frame(bytes([_FIN_ACK]), self._send_key)] * 2

    # bytes in

    def take_chunk(self, chunk: bytes, now: float) -> bool:
        """Take what stood between two delimiters; False when it is no frame of the session."""
        body = open_frame(chunk, self._receive_key)
        if body is None:
            return False
        self._last_heard = now
        self._watch.heard(good=True)
        kind = body[0]
        if isinstance(self._rate, AgentRate) and kind not in RATE_KINDS:
            self._rate.spoken_to()
        if kind < 0x80:
            if len(body) > _HEAD.size:
                (head,) = _HEAD.unpack_from(body)
                self.receiver.add(head & 0xFFFFF, head >> 20, body[_HEAD.size :], now)
        elif kind == ACK:
            ack = read_ack(body)
            if ack is not None:
                self.sender.acknowledged(*ack, now=now)
        elif kind == _PROBE and len(body) == _PROBE_BODY.size:
            self.receiver.probed(_PROBE_BODY.unpack(body)[1] % TX_SPAN, now)
        elif kind == _FIN:
            self.ended, self.heard_fin = "the other end hung up", True
        elif kind == _FIN_ACK and self.is_closing:
            self.ended = "it was closed on this side"
        elif self._rate.heard(body, now):
            self._speed_is(self.baud)
            self._wants_probe = True  # which tells the agent
        return True

    def spoilt(self) -> None:
        """Note something between two delimiters that was no frame at all."""
        self._watch.heard(good=False)

    # time

    def _speed_is(self, baud: int) -> None:
        self.sender.set_baud(baud)
        self._watch.begin(sent=self.sender.frames_sent, lost=self.sender.frames_lost)

    def tick(self, now: float) -> None:
        """Let time pass; afterwards the port has to be set to `baud`."""
        if self.is_closing:
            if self._fins >= _FINS and now >= self._next_fin:
                self.ended = "it was closed on this side"
            return
        silent_s = now - self._last_heard
        if silent_s >= DEAD_S and not self._is_host:
            self.ended = "nothing was heard for {:.0f} s".format(silent_s)
            return
        before = self._rate.baud
        if before != self._base_baud and silent_s >= SILENCE_S:
            self._rate.fall_back()
            self._candidates = []
        if isinstance(self._rate, HostRate):
            self._consider(self._rate, now)
            self._rate.tick(now, is_quiet=self.sender.is_quiet)
            self.sender.holds_new = self._rate.is_draining
        else:
            self._rate.tick(now, line_free_at=self.sender.line_free_at)
        if self._rate.baud != before:
            self._speed_is(self._rate.baud)

    def _consider(self, rate: HostRate, now: float) -> None:
        """Look for a faster speed when it pays, or for a slower one when this does not hold."""
        if not rate.at_rest:
            return
        sender = self.sender
        if self._candidates:
            if self._watch.is_worth(
                waiting_bytes=sender.unsettled_bytes,
                used_bytes=sender.settled_bytes + self.receiver.received_bytes,
                bytes_per_s=sender.bytes_per_s,
            ):
                rate.start(self._candidates, now)
                self._candidates = []
        elif rate.baud != self._base_baud and self._watch.is_bad(
            sent=sender.frames_sent, lost=sender.frames_lost
        ):
            rate.start([self._base_baud], now)

    def wake_at(self, now: float) -> Optional[float]:
        """When `tick` and `take` are to be called next, though nothing arrived."""
        if self.is_closing:
            return self._next_fin
        if self._wants_probe:
            return now
        times: List[Optional[float]] = [self._rate.wake_at()]
        if not self._is_host:
            times.append(self._last_heard + DEAD_S)
        if self._rate.baud != self._base_baud:
            times.append(self._last_heard + SILENCE_S)
        if not self._rate.paused:
            if self.sender.has_data():
                return now
            times.append(self.receiver.ack_at(now))
            times.append(self.sender.probe_at())
            times.append(self._last_sent + _KEEPALIVE_S)
        return min((time for time in times if time is not None), default=None)

    # bytes out

    def take(self, out: List[bytes], now: float, limit: int) -> None:
        """Add frames and delimiters to ``out`` until it has about ``limit`` bytes."""
        before = len(out)
        if self.is_closing:
            if now >= self._next_fin and self._fins < _FINS:
                self._fins += 1
                self._next_fin = now + _FIN_EVERY_S
                self._add(out, bytes([_FIN]), now)
            return
        for body in self._rate.take(now):
            self._add(out, body, now)
        if not self._rate.paused:
            ack_at = self.receiver.ack_at(now)
            if ack_at is not None and now >= ack_at:
                self._add(out, self.receiver.ack(), now)
            self._add_data(out, now, limit)
            self._add_probe(out, now, is_idle=len(out) == before)
        if len(out) > before:
            self._last_sent = now

    def _add_data(self, out: List[bytes], now: float, limit: int) -> None:
        room = limit - sum(len(part) for part in out)
        while room > 0:
            piece = self.sender.next_data()
            if piece is None:
                break
            tx, offset, payload = piece
            room -= self._add(out, pack_data(tx, offset, payload), now, tx=tx)

    def _add_probe(self, out: List[bytes], now: float, *, is_idle: bool) -> None:
        probe_at = self.sender.probe_at()
        due = probe_at is not None and now >= probe_at
        if due:
            self.sender.probing()
        if due or self._wants_probe or (is_idle and now >= self._last_sent + _KEEPALIVE_S):
            self._wants_probe = False
            tx = self.sender.next_probe()
            self._add(out, _PROBE_BODY.pack(_PROBE, tx % TX_SPAN), now, tx=tx)

    def _add(self, out: List[bytes], body: bytes, now: float, *, tx: int = 0) -> int:
        sealed = seal_frame(body, self._send_key)
        out.append(sealed)
        out.append(DELIMITER)
        self.sender.sent(len(sealed) + 1, now, tx=tx)
        return len(sealed) + 1
