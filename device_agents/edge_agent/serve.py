"""One conversation: frames in, frames out, over any pair of `read` and `write` functions.

Two threads: the caller's reads, one answers in order. So the end of the link is noticed at
once, and whatever a worker was doing for it is ended. A third says "alive" during long work.
Links lose nothing (a serial line has `edgesdk.wire.arq` below), so each request comes once.
"""

from __future__ import annotations

import collections
import contextlib
import threading
import time
from typing import TYPE_CHECKING, Any, Callable, Dict, List, Optional

from edge_agent import later
from edge_agent.context import Context
from edge_agent.handlers import answer
from edge_agent.holding import Peer
from edge_agent.refusals import Cancelled
from edge_agent.vitals import vitals
from edgesdk.wire import codes
from edgesdk.wire.frames import Frame, FrameError, FrameReader, encode_frame

if TYPE_CHECKING:
    from edge_agent.agent import Agent

__all__ = ["Conversation"]

#: Answered by the thread that reads, where nothing else is under way: two changes of threads
#: would be a good part of a short inference. It has a limit of its own, and changes nothing.
_AT_ONCE = ("infer",)

_ALIVE_S = 0.5
_QUEUE_BYTES = 4 << 20
_QUEUE_FRAMES = 1024
#: What a request may take by itself; waiting for a worker or for the host is not counted.
_ANSWER_S = 600.0


def _size(frame: Frame) -> int:
    """Bytes of a frame that waits, more or less as it came."""
    return len(frame.body) + len(frame.raw_meta or b"")


class Conversation:
    """Reads requests until the link ends, and answers them in order.

    Args:
        agent: What does the work.
        read: Gives what came; nothing at the end of the link.
        read_into: The same, but puts it into a buffer and gives its size; where there is none
            all goes through ``read``.
        write: Sends.
        is_line: The link is a wire without a login: its key is asked for, where there is one.
    """

    def __init__(
        self,
        agent: Agent,
        *,
        read: Callable[[], bytes],
        write: Callable[[bytes], None],
        answer: Callable[[Agent, Context, Frame], Frame] = answer,
        is_line: bool = False,
        is_application: bool = False,
        read_into: Optional[Callable[[memoryview], int]] = None,
    ) -> None:
        self._read_into = read_into
        self._gate = None  # type: Optional[LineGate]
        if is_line:
            self._gate = later.line_gate.LineGate(
                agent.policy.files.line_key, self._greet, agent.log.write
            )
        self._agent = agent
        self._answer_request = answer
        self._is_application = is_application
        self._read = read
        self._write = write
        self._reader = FrameReader(takes_bare=not is_line)
        self._write_lock = threading.Lock()
        self._state = threading.Condition()
        self._queue = collections.deque()  # type: Any
        self._queued_bytes = 0
        self._session = None  # type: Any
        self._peer = Peer(lambda: self.idle_s)
        self._current = None  # type: Optional[Context]
        self._current_id = 0
        self._last_sent = self._last_active = time.monotonic()
        self._over = False

    @property
    def noise_bytes(self) -> int:
        """Bytes that were no frame."""
        return self._reader.noise_bytes

    @property
    def is_busy(self) -> bool:
        """Say whether a request is being answered or waits."""
        return self._current is not None or bool(self._queue)

    @property
    def idle_s(self) -> float:
        """For how long nothing came and nothing was being answered."""
        return 0.0 if self.is_busy else time.monotonic() - self._last_active

    def serve(self) -> None:
        """Talk until ``read`` gives nothing; what was asked before is still answered."""
        answering = threading.Thread(target=self._answer_all, name="answer", daemon=True)
        ticking = threading.Thread(target=self._tick_all, name="alive", daemon=True)
        try:
            answering.start()
            ticking.start()
            while True:
                frames = self._receive()
                self._last_active = time.monotonic()
                if frames is None or self._over:  # an answer could not be sent: nobody hears us
                    break
                for frame in frames:
                    self._take(frame)
        finally:
            with self._state:
                self._over = True
                current = self._current
                self._state.notify_all()
            if current is not None:
                current.cancel()
            if answering.ident is not None:  # else there was no room for another thread
                answering.join()
            self._peer.gone = True
            if ticking.ident is not None:
                ticking.join()

    def _receive(self) -> Optional[List[Frame]]:
        """Read once and give the frames that this completes; None at the end of the link."""
        room = self._reader.room() if self._read_into is not None else None
        if room is None or self._read_into is None:
            data = self._read()
            return self._reader.feed(data) if data else None
        count = self._read_into(room)
        return self._reader.filled(count) if count else None

    def _greet(self, frame: Frame) -> Frame:
        return self._answer_request(self._agent, Context("hello", self._send), frame)

    def _take(self, came: Frame) -> None:
        frame = came  # type: Optional[Frame]
        if self._gate is not None:
            passed = self._gate.take(came)
            if passed.begins:
                self._begin(passed.session)
                self._peer.who = passed.who
            if passed.reply is not None:
                self._send_bytes(passed.reply)
            frame = passed.frame
        if frame is not None:
            self._take_passed(frame)

    def _take_passed(self, frame: Frame) -> None:
        number = frame.meta.get("id")
        if type(number) is not int or not 0 < number < 1 << 53:
            self._send({"id": None, "ok": False, "code": codes.BAD_REQUEST, "detail": "no id"})
            return
        if frame.meta.get("op") == "hello" and frame.meta.get("session") != self._session:
            self._begin(frame.meta.get("session"))
        at_once = None  # type: Optional[Context]
        with self._state:
            if self._is_for_now(frame):
                at_once = self._begin_answer(self._session, frame)
            else:
                self._put_in_queue(frame)
        if at_once is not None:
            self._answer(at_once, self._session, frame)

    def _is_for_now(self, frame: Frame) -> bool:
        is_served = frame.meta.get("release", "current") == "current"  # others may take long
        return frame.meta.get("op") in _AT_ONCE and is_served and not self.is_busy

    def _put_in_queue(self, frame: Frame) -> None:
        while len(self._queue) >= _QUEUE_FRAMES or (
            self._queue and self._queued_bytes > _QUEUE_BYTES
        ):
            self._state.wait()
        self._queue.append((self._session, frame))
        self._queued_bytes += _size(frame)
        self._state.notify_all()

    def _begin(self, session: Any) -> None:
        """A new session on the same link: the old one's host is gone."""
        with self._state:
            self._session = session
            self._peer.gone = True
            self._peer = Peer(lambda: self.idle_s)
            self._queue.clear()
            self._queued_bytes = 0
            current = self._current
        if current is not None:
            current.cancel()

    def _answer_all(self) -> None:
        while True:
            with self._state:
                while not self._queue and not self._over:
                    self._state.wait()
                if not self._queue:
                    return
                session, frame = self._queue.popleft()
                self._queued_bytes -= _size(frame)
                ctx = self._begin_answer(session, frame)
                self._state.notify_all()
            self._answer(ctx, session, frame)

    def _begin_answer(self, session: Any, frame: Frame) -> Context:
        number = frame.meta["id"]

        def send_event(meta: Dict[str, Any]) -> None:
            if session == self._session:
                self._send(dict(meta, id=number))

        op = str(frame.meta.get("op"))[:40]
        ctx = Context(op, send_event, self._peer, is_application=self._is_application)
        ctx.is_proven = self._gate is None or self._gate.is_proven
        ctx.takes_bare = self._gate is None
        if self._over:
            ctx.cancel()
        self._current, self._current_id = ctx, number
        return ctx

    def _answer(self, ctx: Context, session: Any, frame: Frame) -> None:
        reply = None  # type: Optional[Frame]
        with contextlib.suppress(Cancelled), vitals.promise(_ANSWER_S, "answering " + ctx.op):
            reply = self._answer_request(self._agent, ctx, frame)
        if reply is not None and session == self._session:
            self._send_frame(reply)
        self._current = None
        self._last_active = time.monotonic()
        if ctx.after is not None:
            ctx.after()

    def _tick_all(self) -> None:
        while True:
            with self._state:
                self._state.wait_for(lambda: self._over, timeout=_ALIVE_S)
                if self._over and self._current is None:
                    return
                current, number = self._current, self._current_id
            if self._over:
                time.sleep(0.05)  # the last answers are on their way
            elif current is not None and time.monotonic() - self._last_sent >= _ALIVE_S * 0.9:
                self._send({"id": number, "event": "alive"})

    def _send(self, meta: Dict[str, Any]) -> None:
        self._send_frame(Frame(meta))

    def _send_frame(self, frame: Frame) -> None:
        """Send a frame, sealed where the session is."""
        encode = encode_frame if self._gate is None else self._gate.encode
        # seals are numbered in the order in which they go out
        with vitals.waiting(), self._write_lock:
            try:
                data = encode(frame)
            except FrameError as exc:
                meta = {"id": frame.meta.get("id"), "ok": False, "code": codes.AGENT_BUG}
                data = encode(Frame(dict(meta, detail=str(exc)[:1000], facts={})))
            self._write_out(data)

    def _send_bytes(self, data: bytes) -> None:
        with vitals.waiting(), self._write_lock:
            self._write_out(data)

    def _write_out(self, data: bytes) -> None:
        try:
            self._write(data)
        except OSError:
            # the other end is gone; `read` will notice and end the conversation
            self._over = True
        self._last_sent = time.monotonic()
