"""A conversation with one agent: request, reply, deadline.

The session owns time. While the agent works it sends signs of life, so silence means trouble
however long the work takes. A channel loses nothing, so nothing is ever asked twice. A session
that broke stays broken and repeats the first cause: what came after it would only mislead.
"""

from __future__ import annotations

import contextlib
import getpass
import os
import secrets
import socket
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from types import TracebackType
from typing import Any, Self

import edgesdk
from edgesdk.devices.hello import Hello, read_hello, version_error
from edgesdk.devices.proof import prove
from edgesdk.devices.refusals import doing, refusal_error
from edgesdk.devices.text import clean_text
from edgesdk.errors import ChannelTimeout, EdgeError, LinkError, ProtocolError
from edgesdk.transport.base import Channel, FileTaker, NoisyChannel
from edgesdk.wire import codes
from edgesdk.wire.auth import Opener, Sealer, new_nonce
from edgesdk.wire.frames import Frame, FrameError, FrameReader, bare_frame_ends, encode_frame
from edgesdk.wire.limits import MAX_BODY_BYTES, MAX_CHUNK_BYTES
from edgesdk.wire.ops import PROTOCOL_NEWEST, PROTOCOL_OLDEST

__all__ = ["Hello", "OnEvent", "Session"]

OnEvent = Callable[[Mapping[str, Any]], None]

_FIRST_ID_BELOW = 1 << 40


def _who() -> str:
    """Name this user and computer, for others who find the device held."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # no name in the environment, none for the user's number
        user = str(os.getuid())
    return clean_text(f"{user}@{socket.gethostname()}", limit=128)


class Session:
    """Talks to one agent. Opening it says hello; leaving the ``with`` block closes the channel.

    One request at a time, except through `post` and `next_reply`, with which a push keeps many
    chunks under way.

    Args:
        channel: The way there; the session closes it.
        device_name: How messages call the device.
        timeout_s: How long the greeting may take.
        key: What this host shares with the device, for a link without a login; the device must
            ask for it then.
        lane: The token that makes this a lane of another session, for its push.
        clock: Gives seconds that only rise; tests bring their own.

    Raises:
        LinkError: No agent answers, or it speaks no protocol version that we do.
        AuthError: It asks for a key that we lack, or cannot prove that it has ours.
    """

    def __init__(
        self,
        channel: Channel,
        *,
        device_name: str,
        timeout_s: float = 15.0,
        key: bytes | None = None,
        lane: str | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._clock = clock
        self._lane = lane
        self.channel = channel
        self.device_name = device_name
        #: What a person should know although all works; the receipt of a deployment has it.
        self.notes = channel.notes
        self._reader = FrameReader()
        self._replies: deque[Frame] = deque()
        self._next_id = 1 + secrets.randbelow(_FIRST_ID_BELOW)
        #: Whether this host has the device to itself: see `edgesdk.deploy.hold`.
        self.is_holding = False
        self._broken: EdgeError | None = None
        self._quiet_since_s = self._clock()
        #: How long the quickest answer took: never less than a round trip, in seconds.
        self.quickest_s = float("inf")
        self._sealer: Sealer | None = None
        self._opener: Opener | None = None
        try:
            self.hello = self._greet(timeout_s, key)
            if self.hello.notice:
                self.notes = (*self.notes, self.hello.notice)
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
        channel = self.channel
        below = channel.noise_bytes if isinstance(channel, NoisyChannel) else 0
        return self._reader.noise_bytes + below

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
        begun = self._clock()
        deadline = begun + timeout_s
        request_id = self._take_id()
        self._write(self._encode({**meta, "op": op, "id": request_id}, body))
        self.start_waiting()
        while True:
            for frame in self._frames(self._time_left(op, deadline, timeout_s)):
                if frame.meta.get("id") != request_id:
                    continue  # answers an earlier request, or an earlier session
                if "event" not in frame.meta:
                    self.quickest_s = min(self.quickest_s, self._clock() - begun)
                    return frame
                if on_event is not None:
                    on_event(frame.meta)

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
        if self._opener is not None and self._opener.refused:
            count = self._opener.refused
            return (
                f" ({count} frames came without the seal of this session: did the agent "
                "restart, or is somebody else on the line?)"
            )
        if not self.noise_bytes:
            return ""
        channel = self.channel
        tail = channel.noise_tail if isinstance(channel, NoisyChannel) else ""
        tail = clean_text(self._reader.noise_tail or tail, limit=200).replace("\n", " ")
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

    @property
    def takes_files(self) -> bool:
        """Say whether `post_file` can be used: both ends and the link take bare frames."""
        return (
            self.hello.takes_bare
            and self._sealer is None
            and isinstance(self.channel, FileTaker)
        )

    def post_file(
        self, op: str, meta: Mapping[str, Any], descriptor: int, offset: int, size: int
    ) -> int:
        """Send a request whose body is a piece of an open file; as `post` else.

        Raises:
            LinkError: As `request`.
            OSError: The file cannot be read or has become too short; the session is broken.
        """
        channel = self.channel
        assert isinstance(channel, FileTaker)
        request_id = self._take_id()
        asked = {**meta, "op": op, "id": request_id}
        with self._encoding(op):
            head, tail = bare_frame_ends(asked, size)
        self._sent(
            lambda timeout_s: channel.write_file(
                head, descriptor, offset, size, tail, timeout_s=timeout_s
            )
        )
        return request_id

    def next_reply(self, *, timeout_s: float, on_event: OnEvent | None = None) -> Frame | None:
        """Give the next answer to anything posted, or None when none came in time.

        The answer may be a refusal: see `edgesdk.devices.refusals`. ``on_event`` is called with
        every sign of life before it.

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
                elif on_event is not None:
                    on_event(frame.meta)
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
        frame = Frame(dict(meta), body)
        with self._encoding(str(meta["op"])):
            return encode_frame(frame) if self._sealer is None else self._sealer.encode(frame)

    @contextlib.contextmanager
    def _encoding(self, op: str) -> Iterator[None]:
        try:
            yield
        except FrameError as exc:
            raise ProtocolError(
                f"cannot {doing(op)} {self.device_name}: {exc}",
                hint=f"a request carries at most {MAX_BODY_BYTES} bytes: send fewer at a time",
            ) from exc

    def _write(self, data: bytes) -> None:
        self._sent(lambda timeout_s: self.channel.write(data, timeout_s=timeout_s))

    def _sent(self, send: Callable[[float], None]) -> None:
        try:
            send(self.channel.traits.silence_s)
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
        frames = self._reader.feed(data)
        if self._opener is None:
            return frames
        opened = [self._opener.open(frame) for frame in frames]
        return [frame for frame in opened if frame is not None]

    # the greeting

    def _greet(self, timeout_s: float, key: bytes | None) -> Hello:
        ours = [PROTOCOL_OLDEST, PROTOCOL_NEWEST]
        asks: dict[str, Any] = {
            "protocol": ours,
            "host_version": edgesdk.__version__,
            "session": secrets.token_hex(16),
            "nonce": new_nonce(),
            "who": _who(),
        }
        if self._lane is not None:
            asks["lane"] = self._lane
        asked = {**asks, "op": "hello", "id": self._next_id + 1}
        frame = self._answer_to("hello", asks, b"", timeout_s=timeout_s, on_event=None)
        if frame.meta.get("ok") is not True:
            if frame.meta.get("code") == codes.VERSION:
                raise version_error(frame.meta, device_name=self.device_name)
            raise refusal_error("hello", frame.meta, device_name=self.device_name)
        protocol = frame.meta.get("protocol")
        if not isinstance(protocol, int) or not ours[0] <= protocol <= ours[1]:
            raise version_error(
                {**frame.meta, "facts": {"protocol": [protocol, protocol]}},
                device_name=self.device_name,
            )
        seals = prove(
            key,
            asked,
            frame,
            lambda proof: self._answer_to(
                "auth", {"proof": proof}, b"", timeout_s=timeout_s, on_event=None
            ),
            device_name=self.device_name,
        )
        if seals is not None:
            self._sealer, self._opener = seals
        return read_hello(frame.meta)
