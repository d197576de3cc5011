"""One conversation: frames in, frames out, over any pair of `read` and `write` functions.

Two threads: the caller's reads, one answers in order. So the end of the link is noticed at
once, and whatever a worker was doing for it is ended. A third says "alive" during long work.
Replies are kept for a while, because on a serial line a lost frame is asked for again.
"""

from __future__ import annotations

import collections
import contextlib
import threading
import time
from typing import TYPE_CHECKING, Any, Callable, Dict, Optional

from edge_agent.handlers import answer
from edge_agent.refusals import Cancelled
from edgesdk.wire import codes
from edgesdk.wire.frames import Frame, FrameError, FrameReader, encode_frame

if TYPE_CHECKING:
    from edge_agent.handlers import Agent

__all__ = ["Context", "Conversation"]

_ALIVE_S = 0.5
_QUEUE_BYTES = 4 << 20
_KEPT_REPLIES = 256
_KEPT_BYTES = 4 << 20
_KEPT_IDS = 4096


class Context:
    """One request on its way: how a handler tells of progress, or learns nobody waits."""

    def __init__(self, op: str, send_event: Callable[[Dict[str, Any]], None]) -> None:
        self.op = op
        self.on_cancel = None  # type: Optional[Callable[[], None]]
        self.after = None  # type: Optional[Callable[[], None]]
        self._send_event = send_event
        self._cancelled = threading.Event()

    def event(self, meta: Dict[str, Any]) -> None:
        """Tell the host how far the work is; only known fields of ``meta`` go out."""
        kept = {k: meta[k] for k in ("event", "step", "done", "total") if k in meta}
        self._send_event(kept)

    def is_cancelled(self) -> bool:
        """Say whether the one who asked is gone."""
        return self._cancelled.is_set()

    def cancel(self) -> None:
        """Nobody waits any more: end what can be ended."""
        self._cancelled.set()
        hook = self.on_cancel
        if hook is not None:
            hook()


class _Replies:
    """The last replies of a session, bounded in number and bytes; the newest is always kept."""

    def __init__(self) -> None:
        self._kept = collections.OrderedDict()  # type: Any
        self._bytes = 0
        self._seen = collections.OrderedDict()  # type: Any

    def add(self, number: int, data: bytes) -> None:
        self._kept[number] = data
        self._bytes += len(data)
        self._seen[number] = True
        while len(self._kept) > 1 and (
            len(self._kept) > _KEPT_REPLIES or self._bytes > _KEPT_BYTES
        ):
            _, old = self._kept.popitem(last=False)
            self._bytes -= len(old)
        while len(self._seen) > _KEPT_IDS:
            self._seen.popitem(last=False)

    def find(self, number: int) -> Optional[bytes]:
        return self._kept.get(number)  # type: ignore[no-any-return]

    def was_answered(self, number: int) -> bool:
        return number in self._seen


class Conversation:
    """Reads requests until the link ends, and answers them in order."""

    def __init__(
        self,
        agent: Agent,
        *,
        read: Callable[[], bytes],
        write: Callable[[bytes], None],
    ) -> None:
        self._agent = agent
        self._read = read
        self._write = write
        self._reader = FrameReader()
        self._write_lock = threading.Lock()
        self._state = threading.Condition()
        self._queue = collections.deque()  # type: Any
        self._queued_bytes = 0
        self._waiting_ids = set()  # type: set
        self._session = None  # type: Any
        self._replies = _Replies()
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

    def line_fell_silent(self) -> None:
        """Read on behind a half frame, whose sender was killed; called by ``read``."""
        for frame in self._reader.give_up_partial():
            self._take(frame)

    def serve(self) -> None:
        """Talk until ``read`` gives nothing; what was asked before is still answered."""
        answering = threading.Thread(target=self._answer_all, name="answer", daemon=True)
        ticking = threading.Thread(target=self._tick_all, name="alive", daemon=True)
        answering.start()
        ticking.start()
        try:
            while True:
                data = self._read()
                self._last_active = time.monotonic()
                if not data:
                    break
                for frame in self._reader.feed(data):
                    self._take(frame)
        finally:
            with self._state:
                self._over = True
                current = self._current
                self._state.notify_all()
            if current is not None:
                current.cancel()
            answering.join()
            ticking.join()

    def _take(self, frame: Frame) -> None:
        number = frame.meta.get("id")
        if type(number) is not int or not 0 < number < 1 << 53:
            self._send({"id": None, "ok": False, "code": codes.BAD_REQUEST, "detail": "no id"})
            return
        if frame.meta.get("op") == "hello" and frame.meta.get("session") != self._session:
            self._begin(frame.meta.get("session"))
        with self._state:
            if number in self._waiting_ids:
                return  # asked again while it is being done
            kept = self._replies.find(number)
            if kept is None and not self._replies.was_answered(number):
                while self._queue and self._queued_bytes > _QUEUE_BYTES:
                    self._state.wait()
                self._queue.append((self._session, frame))
                self._queued_bytes += len(frame.body)
                self._waiting_ids.add(number)
                self._state.notify_all()
                return
        if kept is not None:
            self._send_bytes(kept)
        else:
            text = "request {} was answered, and the answer is no longer kept".format(number)
            self._send({"id": number, "ok": False, "code": codes.BAD_REQUEST, "detail": text})

    def _begin(self, session: Any) -> None:
        """A new session on the same link: the old one's host is gone."""
        with self._state:
            self._session = session
            self._replies = _Replies()
            self._queue.clear()
            self._queued_bytes = 0
            self._waiting_ids.clear()
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
                self._queued_bytes -= len(frame.body)
                number = frame.meta["id"]

                def send_event(
                    meta: Dict[str, Any], number: int = number, session: Any = session
                ) -> None:
                    if session == self._session:
                        self._send(dict(meta, id=number))

                ctx = Context(str(frame.meta.get("op"))[:40], send_event)
                if self._over:
                    ctx.cancel()
                self._current, self._current_id = ctx, number
                self._state.notify_all()
            self._answer(ctx, session, frame)

    def _answer(self, ctx: Context, session: Any, frame: Frame) -> None:
        number = frame.meta["id"]
        data = None  # type: Optional[bytes]
        with contextlib.suppress(Cancelled):
            data = self._encoded(answer(self._agent, ctx, frame))
        with self._state:
            self._current = None
            if session == self._session:
                self._waiting_ids.discard(number)
                if data is not None:
                    self._replies.add(number, data)
            else:
                data = None
        self._last_active = time.monotonic()
        if data is not None:
            self._send_bytes(data)
        if ctx.after is not None:
            ctx.after()

    def _encoded(self, reply: Frame) -> bytes:
        try:
            return encode_frame(reply)
        except FrameError as exc:
            meta = {
                "id": reply.meta.get("id"),
                "ok": False,
                "code": codes.AGENT_BUG,
                "detail": str(exc)[:1000],
                "facts": {},
            }
            return encode_frame(Frame(meta))

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
        self._send_bytes(encode_frame(Frame(meta)))

    def _send_bytes(self, data: bytes) -> None:
        with self._write_lock:
            try:
                self._write(data)
            except OSError:
                # the other end is gone; `read` will notice and end the conversation
                self._over = True
            self._last_sent = time.monotonic()
