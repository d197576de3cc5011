"""The gate of a serial line: hosts prove that they hold the line's key, and seal what they say.

It stands between the frames and the conversation. Where no key is asked for it lets everything
through. Else it answers greetings itself, and a session begins only with a good proof: so
somebody who writes on the wire without the key can neither ask for anything nor end the session
of somebody who has it. See `edgesdk.wire.auth` for what is proven.
"""

from __future__ import annotations

from typing import Any, Callable, Optional

from edge_agent import asking
from edgesdk.wire import codes
from edgesdk.wire.auth import NONCE, Keys, Opener, Sealer, new_nonce
from edgesdk.wire.frames import Frame, encode_frame, meta_bytes

__all__ = ["LineGate", "Passed"]


class Passed:
    """What becomes of a frame: ``frame`` for the conversation, ``reply`` for the other end.

    ``begins`` says that a proven session begins, named ``session``, of the host ``who``.
    """

    def __init__(
        self,
        frame: Optional[Frame] = None,
        *,
        reply: Optional[bytes] = None,
        begins: bool = False,
        session: Any = None,
        who: str = "",
    ) -> None:
        self.who = who
        self.frame = frame
        self.reply = reply
        self.begins = begins
        self.session = session


class _Greeting:
    """A greeting that was answered and waits for its proof."""

    def __init__(self, asked: Frame, answered: Frame, shared: bytes) -> None:
        self.session = asked.meta.get("session")
        self.who = asking.line(asked.meta, "who", limit=128)
        self.shared = shared
        self.keys = Keys(shared, asked.raw_meta or b"", meta_bytes(answered.meta))


class LineGate:
    """Lets frames through, or not.

    Args:
        key: Gives the key that is demanded now, or None.
        greet: Answers a greeting.
        log: Takes a line for people.
    """

    def __init__(
        self,
        key: Callable[[], Optional[bytes]],
        greet: Callable[[Frame], Frame],
        log: Callable[[str], None],
    ) -> None:
        self._key = key
        self._greet = greet
        self._log = log
        self._greeting = None  # type: Optional[_Greeting]
        self._shared = None  # type: Optional[bytes]
        self._sealer = None  # type: Optional[Sealer]
        self._opener = None  # type: Optional[Opener]
        self._turned_away = 0

    @property
    def is_proven(self) -> bool:
        """Say whether the host has proven that it holds the key."""
        return self._opener is not None

    def encode(self, frame: Frame) -> bytes:
        """Give the bytes of a frame for the host of this session."""
        return encode_frame(frame) if self._sealer is None else self._sealer.encode(frame)

    def take(self, frame: Frame) -> Passed:
        """Say what becomes of a frame that came."""
        shared = self._key()
        op = frame.meta.get("op")
        if shared is None and (self._opener is None or op == "hello"):
            self._shut()
            return Passed(frame)
        if self._shared is not None and shared is not None and shared != self._shared:
            self._shut()  # the key was changed: who had the old one begins anew
        if op == "hello" and shared is not None:
            return self._answer_greeting(frame, shared)
        if op == "auth":
            return self._hear_proof(frame)
        opened = None if self._opener is None else self._opener.open(frame)
        if opened is not None:
            return Passed(opened)
        return self._turn_away(frame, "prove first that you hold the key of this line")

    def _shut(self) -> None:
        self._shared = self._sealer = self._opener = None

    def _turn_away(self, frame: Frame, text: str) -> Passed:
        self._turned_away += 1
        if self._turned_away in (1, 10, 100) or self._turned_away % 1000 == 0:
            self._log("line: {} frames without proof were refused".format(self._turned_away))
        if self._opener is not None:
            return Passed()  # a proven host is on the line; whoever this is gets no answer
        number = frame.meta.get("id")
        meta = {
            "id": number if type(number) is int else None,
            "ok": False,
            "code": codes.NOT_AUTHENTICATED,
            "detail": text,
            "facts": {},
        }
        return Passed(reply=encode_frame(Frame(meta)))

    def _answer_greeting(self, frame: Frame, shared: bytes) -> Passed:
        nonce = frame.meta.get("nonce")
        if not isinstance(nonce, str) or not NONCE.match(nonce):
            return self._turn_away(frame, "this line has a key, and the greeting has no nonce")
        answered = self._greet(frame)
        if answered.meta.get("ok") is True:
            answered = Frame(dict(answered.meta, nonce=new_nonce()))
            self._greeting = _Greeting(frame, answered, shared)
        return Passed(reply=encode_frame(answered))

    def _hear_proof(self, frame: Frame) -> Passed:
        greeting = self._greeting
        if greeting is None:
            return self._turn_away(frame, "greet first")
        if not Keys.is_proof(frame.meta.get("proof"), greeting.keys.host_proof):
            return self._turn_away(frame, "that is not the key of this line")
        self._greeting = None
        self._shared = greeting.shared
        self._sealer = Sealer(greeting.keys.agent_seal)
        self._opener = Opener(greeting.keys.host_seal)
        meta = {"id": frame.meta.get("id"), "ok": True, "proof": greeting.keys.agent_proof}
        reply = encode_frame(Frame(meta))
        return Passed(reply=reply, begins=True, session=greeting.session, who=greeting.who)
