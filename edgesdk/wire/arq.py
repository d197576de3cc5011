"""A reliable byte stream over a serial line, both ends of it. No I/O, and no clock but yours.

Whoever owns the port calls, in a loop: `Arq.feed` with what arrived, `Arq.tick`, sets the port
to `Arq.baud`, and sends what `Arq.take` gives; `Arq.wake_at` says when to do so though nothing
arrived. The application uses `put` and `get`.

A session begins with the host's ``SYN``, which carries a random token; the agent answers with
one of its own, and both make the keys of the session from them. So frames of an earlier
session, an echo, or a console's text are never taken for data, and a new ``SYN`` ends whatever
was. An agent without a session gives what is no frame as text (see `Cutter`), and answers
frames of a session that it does not know, because it was restarted, with ``RST``.

The frames stand in `arq_open` and `arq_session`.
"""

from __future__ import annotations

from typing import Callable, List, Optional, Sequence

from edgesdk.wire.arq_frames import DELIMITER, Cutter
from edgesdk.wire.arq_open import (
    LINE_VERSION,
    RST,
    SYN,
    SYN_ACK,
    TOKEN_BYTES,
    Opening,
    pack_rst,
    pack_syn,
    pack_syn_ack,
    read_opening,
    session_keys,
)
from edgesdk.wire.arq_receive import Receiver
from edgesdk.wire.arq_send import Sender
from edgesdk.wire.arq_session import LineSession

__all__ = ["Arq"]

_SYN_EVERY_S = 0.3
_RST_EVERY_S = 1.0
#: The last bytes at a speed leave a UART, or a USB adapter, within this.
_LEAVE_S = 0.03
_CLOSED_HERE = "it was closed on this side"


class Arq:
    """One end of the line.

    Args:
        is_host: Whether this end begins sessions.
        baud: The base speed, at which sessions begin, in bits a second.
        rates: Faster ones that the port may be set to.
        new_token: Gives so many random bytes.
        on_text: Takes what is no frame while there is no session.

    Attributes:
        sessions: How many have begun; rises with each, so that an owner notices a new one.
        why_ended: Why the last one ended, for people.
        sender: Of the session that is, was, or is about to be.
        receiver: Of the session that is, or was.
    """

    def __init__(
        self,
        *,
        is_host: bool,
        baud: int,
        rates: Sequence[int] = (),
        new_token: Callable[[int], bytes],
        on_text: Optional[Callable[[bytes], None]] = None,
    ) -> None:
        self.is_host = is_host
        self.base_baud = baud
        self.sessions = 0
        self.why_ended = ""
        self.sender = Sender(baud)
        self.receiver = Receiver()
        self._rates = [rate for rate in rates if rate > baud]
        self._new_token = new_token
        self._on_text = on_text
        self._cutter = Cutter()
        self._own_token = new_token(TOKEN_BYTES)
        self._host_token = b""
        self._session: Optional[LineSession] = None
        self._is_opening = False
        self._idle_baud = baud
        self._leave_at: Optional[float] = None
        self._outside: List[bytes] = []
        self._next_syn = self._last_rst = 0.0

    # what the owner of the port asks

    @property
    def baud(self) -> int:
        """The speed that the port should have now, in bits a second."""
        return self._idle_baud if self._session is None else self._session.baud

    @property
    def noise_bytes(self) -> int:
        """Bytes that came and were no frame."""
        return self._cutter.noise_bytes

    @property
    def noise_tail(self) -> str:
        """The last of them, as printable text."""
        return self._cutter.noise_tail

    @property
    def is_open(self) -> bool:
        """Say whether bytes of the stream can go both ways."""
        return self._session is not None and not self._session.is_closing

    @property
    def is_idle(self) -> bool:
        """Say that there is no session, and none is asked for."""
        return self._session is None and not self._is_opening

    def put(self, data: bytes) -> int:
        """Take bytes to send; gives how many there was room for. A host may begin at once."""
        return self.sender.put(data)

    def get(self) -> bytes:
        """Give what has arrived in order."""
        return self.receiver.take()

    def connect(self, now: float) -> None:
        """Begin a session (host)."""
        self._host_token = self._new_token(TOKEN_BYTES)
        self._is_opening, self._next_syn = True, now

    def hang_up(self, now: float) -> None:
        """End the session; `is_idle` once the other end knows, or was told often enough."""
        if self._session is None:
            self._is_opening, self.why_ended = False, _CLOSED_HERE
        else:
            self._session.hang_up(now)

    # bytes in

    def feed(self, data: bytes, now: float) -> None:
        """Take bytes from the line."""
        cutter, session = self._cutter, self._session
        cutter.is_counting = session is None or not session.is_trying
        cutter.feed(data)
        while True:
            if self._session is not None:
                chunk = cutter.next_of_session()
                if chunk is None:
                    return
                self._take_chunk(self._session, chunk, now)
                continue
            opening, text = cutter.next_opening(now)
            if opening is not None:
                if not self._take_opening(opening, now):
                    cutter.count(opening)
            elif not text:
                break
            elif self._on_text is None:
                cutter.count(text)
            else:
                self._on_text(text)
        if cutter.stray and not self.is_host and now >= self._last_rst + _RST_EVERY_S:
            self._last_rst = now
            self._outside.append(pack_rst(self._own_token))
        cutter.stray = False

    def _take_chunk(self, session: LineSession, chunk: bytes, now: float) -> None:
        if session.take_chunk(chunk, now):
            if session.ended:
                self._end(session, now)
        elif not self._take_opening(chunk, now) and self._cutter.is_counting:
            session.spoilt()
            self._cutter.count(chunk)

    def _take_opening(self, chunk: bytes, now: float) -> bool:
        said = read_opening(chunk)
        if said is None:
            return False
        if said.kind == SYN and not self.is_host:
            self._take_syn(said, now)
        elif said.kind == SYN_ACK and self.is_host:
            self._take_syn_ack(said, now)
        elif said.kind == RST and self.is_host:
            if self._session is not None:
                self._session.ended = "the agent was started anew, or gave this session up"
                self._end(self._session, now)
        else:
            return False  # an echo
        return True

    def _take_syn(self, said: Opening, now: float) -> None:
        token = said.tokens[0] if said.tokens else b""
        if token and (token != self._host_token or not self.is_open):
            self._host_token, self._own_token = token, self._new_token(TOKEN_BYTES)
            self.sender = Sender(self.baud)
            self._begin(said.rates, now)
        self._outside = [pack_syn_ack(token, self._own_token, self._rates)]

    def _take_syn_ack(self, said: Opening, now: float) -> None:
        if not self._is_opening:
            return
        if not said.tokens:
            self._is_opening = False
            self.why_ended = "its agent speaks version {} of the line, this end {}".format(
                said.version, LINE_VERSION
            )
        elif said.tokens[0] == self._host_token:
            self._is_opening = False
            self._own_token = said.tokens[1]
            self._begin(said.rates, now)  # its sender has what was put before

    def _begin(self, their_rates: Sequence[int], now: float) -> None:
        """Start a session with the tokens that are known now."""
        self._session = LineSession(
            is_host=self.is_host,
            base_baud=self.base_baud,
            baud=self.baud,
            rates=[rate for rate in self._rates if rate in their_rates],
            keys=session_keys(self._host_token, self._own_token),
            sender=self.sender,
            now=now,
        )
        self.receiver = self._session.receiver
        self.sessions += 1
        self.why_ended = ""

    def _end(self, session: LineSession, now: float) -> None:
        """Leave the session; the speed goes back to the base one when all is out."""
        self._idle_baud = session.baud
        self._session, self.why_ended = None, session.ended
        self._leave_at = now
        if session.heard_fin:
            self._outside += session.farewell()
            self._leave_at = None

    # time

    def tick(self, now: float) -> None:
        """Let time pass; afterwards the port has to be set to `baud`."""
        session = self._session
        if session is not None:
            before = session.baud
            session.tick(now)
            if session.baud != before:
                self._cutter.is_counting = False
                self._cutter.clear()
            if session.ended:
                self._end(session, now)
        elif self._idle_baud != self.base_baud and not self._outside:
            if self._leave_at is None:
                self._leave_at = max(now, self.sender.line_free_at) + _LEAVE_S
            elif now >= self._leave_at:
                self._idle_baud = self.base_baud
                self._cutter.clear()

    def wake_at(self, now: float) -> Optional[float]:
        """When `tick` and `take` are to be called next, though nothing arrived."""
        if self._outside:
            return now
        if self._session is not None:
            return self._session.wake_at(now)
        if self._is_opening:
            return self._next_syn
        if self._idle_baud != self.base_baud:
            return now if self._leave_at is None else self._leave_at
        return None

    # bytes out

    def take(self, now: float, *, limit: int = 4096) -> bytes:
        """Give bytes to send now, about ``limit`` of them."""
        out: List[bytes] = []
        if self._is_opening and now >= self._next_syn:
            self._next_syn = now + _SYN_EVERY_S
            self._outside = [pack_syn(self._host_token, self._rates)]
        for sealed in self._outside:
            out += (sealed, DELIMITER)
            self.sender.sent(len(sealed) + 1, now)
        self._outside = []
        if self._session is not None:
            self._session.take(out, now, limit)
        if not out:
            return b""
        self.sender.sent(1, now)
        return DELIMITER + b"".join(out)
