"""A conversation with one agent: request, reply, deadline, repetition.

The session owns time. While the agent works it sends signs of life, so silence means trouble
however long the work takes. On a lossy link a request is repeated under the same id, which the
agent answers from its last replies. A session that broke stays broken and repeats the first
cause: what came after it would only mislead.
"""

from __future__ import annotations

import secrets
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import edgesdk
from edgesdk.devices.refusals import doing, refusal_error
from edgesdk.devices.text import clean_text
from edgesdk.errors import ChannelTimeout, EdgeError, LinkError, ProtocolError
from edgesdk.transport.base import Channel
from edgesdk.wire import codes
from edgesdk.wire.frames import Frame, FrameError, FrameReader, encode_frame
from edgesdk.wire.limits import MAX_BODY_BYTES, MAX_CHUNK_BYTES
from edgesdk.wire.ops import PROTOCOL_NEWEST, PROTOCOL_OLDEST

__all__ = ["Hello", "OnEvent", "Session"]

OnEvent = Callable[[Mapping[str, Any]], None]

_FIRST_ID_BELOW = 1 << 40
#: Covers the longest frame that an earlier, killed host can have left half sent.
_FLUSH_BYTES = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Hello:
    """What the agent said of itself."""

    protocol: int
    agent_version: str
    agent_sha256: str
    python: str
    machine: str
    daemon: bool
    pid: int
    max_chunk_bytes: int
    max_body_bytes: int


class Session:
    """Talks to one agent. Opening it says hello; leaving the ``with`` block closes the channel.

    One request at a time, except through `post` and `next_reply`, with which a push keeps many
    chunks under way.

    Args:
        channel: The way there; the session closes it.
        device_name: How messages call the device.
        timeout_s: How long the greeting may take.
        clock: Gives seconds that only rise; tests bring their own.

    Raises:
        LinkError: No agent answers, or it speaks no protocol version that we do.
    """

    def __init__(
        self,
        channel: Channel,
        *,
        device_name: str,
        timeout_s: float = 15.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._clock = clock
        self.channel = channel
        self.device_name = device_name
        #: What a person should know although all works; the receipt of a deployment has it.
        self.notes = channel.notes
        self._reader = FrameReader()
        self._replies: deque[Frame] = deque()
        self._next_id = 1 + secrets.randbelow(_FIRST_ID_BELOW)
        self._broken: EdgeError | None = None
        self._quiet_since_s = self._clock()
        try:
            self.hello = self._greet(timeout_s)
        except BaseException:
            channel.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def noise_bytes(self) -> int:
        """Bytes that came and were no frames: boot messages, or a bad cable."""
        return self._reader.noise_bytes

    @property
    def chunk_bytes(self) -> int:
        """The largest piece of a blob that both ends and the link like."""
        limits = (self.channel.traits.chunk_bytes, self.hello.max_chunk_bytes, MAX_CHUNK_BYTES)
        return max(1, min(limits))

    def close(self) -> None:
        """End the conversation and the channel; may be repeated."""
        if self._broken is None:
            self._broken = ProtocolError(f"cannot talk to {self.device_name}: it was closed")
        self.channel.close()

    # one request, one reply

    def request(
        self,
        op: str,
        meta: Mapping[str, Any] | None = None,
        body: bytes = b"",
        *,
        timeout_s: float = 60.0,
        on_event: OnEvent | None = None,
    ) -> Frame:
        """Ask for ``op`` and wait for the answer.

        Args:
            op: One of `edgesdk.wire.ops.OPS`.
            meta: The fields it asks.
            body: The bytes it asks.
            timeout_s: How long the work may take in all; silence ends it earlier.
            on_event: Called with every sign of life.

        Raises:
            LinkError: The link broke, was silent too long, or the ends do not understand
                each other. The session cannot be used after that.
            EdgeError: The agent refused; the class follows the code of the reply.
        """
        frame = self._answer_to(op, meta or {}, body, timeout_s=timeout_s, on_event=on_event)
        if frame.meta.get("ok") is not True:
            raise refusal_error(op, frame.meta, device_name=self.device_name)
        return frame

    def _answer_to(
        self,
        op: str,
        meta: Mapping[str, Any],
        body: bytes,
        *,
        timeout_s: float,
        on_event: OnEvent | None,
    ) -> Frame:
        deadline = self._clock() + timeout_s
        request_id = self._take_id()
        data = self._encode({**meta, "op": op, "id": request_id}, body)
        self._write(data)
        self.start_waiting()
        sent_s = self._clock()
        traits = self.channel.traits
        while True:
            wait_s = self._time_left(op, deadline, timeout_s)
            if traits.lossy:
                wait_s = min(wait_s, traits.repeat_s)
            for frame in self._frames(wait_s):
                if frame.meta.get("id") != request_id:
                    continue  # answers an earlier request, or an earlier session
                if "event" not in frame.meta:
                    return frame
                if on_event is not None:
                    on_event(frame.meta)
            quiet_s = self._clock() - max(self._quiet_since_s, sent_s)
            if traits.lossy and quiet_s >= traits.repeat_s:
                if op == "hello":
                    # an agent may still wait for the rest of a frame whose host was killed
                    self._write(bytes(traits.chunk_bytes + _FLUSH_BYTES))
                self._write(data)
                sent_s = self._clock()

    def _time_left(self, op: str, deadline: float, timeout_s: float) -> float:
        """How long to wait for the next byte; raises when the agent was silent too long."""
        now = self._clock()
        silence_s = self.channel.traits.silence_s
        silent_s = now - self._quiet_since_s
        if now >= deadline:
            raise self._break(
                ChannelTimeout(
                    f"cannot {doing(op)} {self.device_name}: no answer within {timeout_s:g} s"
                    + self._noise_note(),
                    hint="is the agent running? try `edgesdk devices ping`",
                    timeout_s=timeout_s,
                    noise_bytes=self.noise_bytes,
                )
            )
        if silent_s >= silence_s:
            raise self._break(
                ChannelTimeout(
                    f"cannot {doing(op)} {self.device_name}: no data for {silent_s:.0f} s"
                    + self._noise_note(),
                    hint="is the device still powered and connected? what was sent stays "
                    "there, the next run continues",
                    timeout_s=silence_s,
                    noise_bytes=self.noise_bytes,
                )
            )
        return min(deadline - now, silence_s - silent_s)

    def _noise_note(self) -> str:
        if not self.noise_bytes:
            return ""
        tail = clean_text(self._reader.noise_tail, limit=200).replace("\n", " ")
        note = f" ({self.noise_bytes} bytes came that are no answer"
        return f"{note}, the last were {tail!r})" if tail else f"{note})"

    # many requests under way

    def post(self, op: str, meta: Mapping[str, Any], body: bytes = b"") -> int:
        """Send a request without waiting; gives the id that its answer will carry.

        Raises:
            LinkError: As `request`.
        """
        request_id = self._take_id()
        self._write(self._encode({**meta, "op": op, "id": request_id}, body))
        return request_id

    def next_reply(self, *, timeout_s: float) -> Frame | None:
        """Give the next answer to anything posted, or None when none came in time.

        The answer may be a refusal: see `edgesdk.devices.refusals`.

        Raises:
            LinkError: As `request`, except that silence is the caller's to judge.
        """
        deadline = self._clock() + timeout_s
        while not self._replies:
            left_s = deadline - self._clock()
            if left_s <= 0 and timeout_s > 0:
                return None
            for frame in self._frames(max(0.0, left_s)):
                if "event" not in frame.meta:
                    self._replies.append(frame)
            if timeout_s <= 0:
                break
        return self._replies.popleft() if self._replies else None

    def start_waiting(self) -> None:
        """Count silence from now on; what was quiet before nobody had asked for."""
        self._quiet_since_s = self._clock()

    def silent_s(self) -> float:
        """For how long nothing has come from the agent, in seconds."""
        return self._clock() - self._quiet_since_s

    def give_up_on_silence(self, op: str) -> None:
        """Break the session when the link has been silent for longer than it may.

        Raises:
            ChannelTimeout: It has.
        """
        self._time_left(op, float("inf"), 0.0)

    # the stream below

    def _take_id(self) -> int:
        if self._broken is not None:
            first = self._broken
            raise type(first)(str(first), hint=first.hint, **first.facts)
        self._next_id += 1
        return self._next_id

    def _break(self, cause: EdgeError) -> EdgeError:
        if self._broken is None:
            self._broken = cause
        return cause

    def _encode(self, meta: Mapping[str, Any], body: bytes) -> bytes:
        try:
            return encode_frame(Frame(dict(meta), body))
        except FrameError as exc:
            raise ProtocolError(
                f"cannot {doing(str(meta['op']))} {self.device_name}: {exc}",
                hint=f"a request carries at most {MAX_BODY_BYTES} bytes: send fewer at a time",
            ) from exc

    def _write(self, data: bytes) -> None:
        try:
            self.channel.write(data, timeout_s=self.channel.traits.silence_s)
        except LinkError as exc:
            raise self._break(exc) from exc.__cause__
        except BaseException:
            # half a frame may be out: nothing sent after it would be understood
            self._break(
                ProtocolError(f"cannot talk to {self.device_name}: sending was interrupted")
            )
            raise

    def _frames(self, wait_s: float) -> list[Frame]:
        """Read once; an empty list when nothing came within ``wait_s``."""
        try:
            data = self.channel.read(timeout_s=wait_s)
        except ChannelTimeout:
            return []
        except LinkError as exc:
            raise self._break(exc) from exc.__cause__
        self._quiet_since_s = self._clock()
        return self._reader.feed(data)

    # the greeting

    def _greet(self, timeout_s: float) -> Hello:
        ours = [PROTOCOL_OLDEST, PROTOCOL_NEWEST]
        asks = {
            "protocol": ours,
            "host_version": edgesdk.__version__,
            "session": secrets.token_hex(16),
        }
        frame = self._answer_to("hello", asks, b"", timeout_s=timeout_s, on_event=None)
        if frame.meta.get("ok") is not True:
            if frame.meta.get("code") == codes.VERSION:
                raise self._version_error(frame.meta)
            raise refusal_error("hello", frame.meta, device_name=self.device_name)
        protocol = frame.meta.get("protocol")
        if not isinstance(protocol, int) or not ours[0] <= protocol <= ours[1]:
            raise self._version_error(
                {**frame.meta, "facts": {"protocol": [protocol, protocol]}}
            )
        return self._read_hello(frame.meta)

    def _version_error(self, meta: Mapping[str, Any]) -> ProtocolError:
        facts = meta.get("facts")
        facts = facts if isinstance(facts, dict) else {}
        theirs = facts.get("protocol")
        span = theirs if isinstance(theirs, list) and len(theirs) == 2 else [None, None]
        agent_version = clean_text(
            facts.get("agent_version") or meta.get("agent_version") or "unknown", limit=40
        )
        newest = span[1]
        if isinstance(newest, int) and newest < PROTOCOL_OLDEST:
            old = "the agent is the older one"
            hint = (
                "replace it with `edgesdk agent install`; behind a serial line copy the file "
                "that `edgesdk agent pack` writes"
            )
        else:
            old, hint = "this edgesdk is the older one", "update edgesdk on this computer"
        spoken = "-".join(str(end) for end in dict.fromkeys(span) if isinstance(end, int))
        ours = "-".join(str(end) for end in dict.fromkeys((PROTOCOL_OLDEST, PROTOCOL_NEWEST)))
        return ProtocolError(
            f"cannot talk to {self.device_name}: its agent {agent_version} speaks protocol "
            f"{spoken or 'unknown'}, edgesdk {edgesdk.__version__} speaks {ours}; {old}",
            hint=hint,
            device=self.device_name,
        )

    def _read_hello(self, meta: Mapping[str, Any]) -> Hello:
        limits = meta.get("limits")
        limits = limits if isinstance(limits, dict) else {}

        def number(value: object, fallback: int) -> int:
            return value if isinstance(value, int) and value > 0 else fallback

        return Hello(
            protocol=int(meta["protocol"]),
            agent_version=clean_text(meta.get("agent_version", ""), limit=40),
            agent_sha256=clean_text(meta.get("agent_sha256", ""), limit=64),
            python=clean_text(meta.get("python", ""), limit=40),
            machine=clean_text(meta.get("machine", ""), limit=40),
            daemon=meta.get("daemon") is True,
            pid=number(meta.get("pid"), 0),
            max_chunk_bytes=number(limits.get("max_chunk_bytes"), MAX_CHUNK_BYTES),
            max_body_bytes=number(limits.get("max_body_bytes"), MAX_BODY_BYTES),
        )
