"""A channel without a link: a function answers, and time passes only when it is waited for."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from typing import Any

from edgesdk.errors import ChannelClosed, ChannelTimeout
from edgesdk.transport.base import LinkTraits
from edgesdk.wire.frames import Frame, FrameReader, encode_frame
from edgesdk.wire.ops import PROTOCOL_NEWEST

__all__ = ["FakeAgent", "ScriptedChannel"]

Answers = Callable[[Frame], Iterable[Frame | bytes]]


class FakeAgent:
    """Answers ``hello``, ``hold`` and ``release`` properly, all else from ``replies``.

    A value of ``replies`` is the meta to answer an operation with, or a function that takes the
    request and gives frames or raw bytes. An operation that is not there is never answered.
    """

    def __init__(self, replies: dict[str, dict[str, Any] | Answers] | None = None) -> None:
        self.replies = replies or {}
        self.requests: list[Frame] = []

    def __call__(self, request: Frame) -> Iterable[Frame | bytes]:
        """Answer one request."""
        self.requests.append(request)
        op, request_id = request.meta.get("op"), request.meta.get("id")
        reply = self.replies.get(str(op))
        if callable(reply):
            return reply(request)
        if reply is not None:
            return [Frame({"ok": True, **reply, "id": request_id})]
        if op == "hello":
            said = {
                "protocol": PROTOCOL_NEWEST,
                "agent_version": "0.0.0",
                "agent_sha256": "0" * 64,
                "python": "3.7.0",
                "machine": "fake",
                "daemon": False,
                "pid": 1,
                "limits": {},
            }
            return [Frame({**said, "id": request_id, "ok": True})]
        if op in {"hold", "release"}:  # nobody else is there
            return [Frame({"ok": True, "id": request_id})]
        return []

    def asked(self, op: str) -> list[Frame]:
        """The requests for ``op`` so far."""
        return [request for request in self.requests if request.meta.get("op") == op]


class ScriptedChannel:
    """A channel whose other end is a function from requests to answers.

    Nothing sleeps: reading when nothing is there moves `now_s` on by the time-out and raises.
    Give `clock` to the session so that both agree on the time.

    Attributes:
        sent: Every byte the host wrote.
        lose: Takes the number of a written frame, from 0; True loses it on the way.
    """

    def __init__(
        self,
        answers: Answers,
        *,
        traits: LinkTraits | None = None,
        lose: Callable[[int], bool] | None = None,
        name: str = "scripted:",
    ) -> None:
        self.name = name
        self.traits = traits or LinkTraits(chunk_bytes=1024, window_bytes=4096)
        self.notes: tuple[str, ...] = ()
        self.sent = bytearray()
        self.now_s = 0.0
        self.lose = lose
        self.closed = False
        self._answers = answers
        self._reader = FrameReader()
        self._ready: deque[bytes] = deque()
        self._count = 0
        self._ended = ""

    def clock(self) -> float:
        """The time on this channel, in seconds."""
        return self.now_s

    def end(self, reason: str) -> None:
        """Let every further use fail, as when the other end goes away."""
        self._ended = reason

    def say(self, data: bytes) -> None:
        """Let the other end send ``data`` unasked."""
        self._ready.append(data)

    def read(self, *, timeout_s: float) -> bytes:
        """See `edgesdk.transport.base.Channel`."""
        if self._ready:
            return self._ready.popleft()
        if self._ended or self.closed:
            reason = self._ended or "it was closed on this side"
            raise ChannelClosed(f"cannot read from {self.name}: {reason}")
        self.now_s += timeout_s
        raise ChannelTimeout(f"cannot read from {self.name}: no data for {timeout_s:g} s")

    def write(self, data: bytes, *, timeout_s: float) -> None:  # noqa: ARG002
        """See `edgesdk.transport.base.Channel`."""
        if self._ended or self.closed:
            reason = self._ended or "it was closed on this side"
            raise ChannelClosed(f"cannot write to {self.name}: {reason}")
        self.sent += data
        for frame in self._reader.feed(data):
            number, self._count = self._count, self._count + 1
            if self.lose is not None and self.lose(number):
                continue
            for answer in self._answers(frame):
                raw = answer if isinstance(answer, bytes) else encode_frame(answer)
                self._ready.append(raw)

    def close(self) -> None:
        """See `edgesdk.transport.base.Channel`."""
        self.closed = True
