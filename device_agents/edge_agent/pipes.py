"""Messages between the agent and its worker: a JSON object and bytes, over a pair of pipes.

Not the frames of a link: a pipe loses and alters nothing, so nothing is summed up, and large
tensors are read into their place and written from where they lie. A message is::

    magic "EDGW" | meta length u32 | body length u32 | meta (JSON, UTF-8) | body

integers big endian. Whatever else comes means that the other end is not what it should be.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import struct
import time
from typing import Any, Callable, Dict, List, Sequence

from edgesdk.wire.frames import Frame, load_json
from edgesdk.wire.limits import MAX_BODY_BYTES, MAX_META_BYTES

__all__ = ["PipeReader", "message", "read_body", "widen", "write_some"]

_HEAD = struct.Struct(">4sII")
_MAGIC = b"EDGW"
#: What a pipe holds on Linux unless told otherwise; a larger buffer only costs its allocation.
_READ_BYTES = 1 << 16
_WIDE_BYTES = 1 << 20
#: Linux, fcntl(2); the module names it from Python 3.10 on.
_F_SETPIPE_SZ = 1031
#: In this time a wide pipe does not fill up, at less than 2 GiB a second.
_GATHER_S = 0.0005


def widen(fd: int) -> bool:
    """Let a pipe hold more, so that much data needs few changes of process; say if it does."""
    with contextlib.suppress(OSError):
        return fcntl.fcntl(fd, _F_SETPIPE_SZ, _WIDE_BYTES) >= _WIDE_BYTES
    return False


def read_body(fd: int, room: memoryview, *, is_wide: bool) -> int:
    """Read what has come of a large body, once there is a good deal of it; give how much.

    Whoever writes into a wide pipe goes on meanwhile, so the pause costs no time, and a reader
    that wakes up for every packet of a link costs a third of a push's processor time.
    """
    if is_wide and len(room) > _READ_BYTES:
        time.sleep(_GATHER_S)
    return os.readv(fd, [room])


def message(meta: Dict[str, Any], pieces: Sequence[Any]) -> List[memoryview]:
    """Give what is to be written, as pieces that are not copied.

    Raises:
        ValueError: A part is over its limit.
    """
    text = json.dumps(meta, separators=(",", ":"), ensure_ascii=False).encode("utf-8")
    body = [memoryview(piece).cast("B") for piece in pieces if len(piece)]
    total = sum(len(piece) for piece in body)
    if len(text) > MAX_META_BYTES or total > MAX_BODY_BYTES:
        raise ValueError("a message of {} and {} bytes is too large".format(len(text), total))
    return [memoryview(_HEAD.pack(_MAGIC, len(text), total) + text)] + body


def write_some(fd: int, pieces: List[memoryview]) -> None:
    """Write once, and drop from ``pieces`` what is written."""
    written = os.writev(fd, pieces[:64])
    while pieces and written >= len(pieces[0]):
        written -= len(pieces.pop(0))
    if written:
        pieces[0] = pieces[0][written:]


class PipeReader:
    """Reads messages from a pipe.

    Args:
        fd: Its end.
    """

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._buffer = b""

    def receive(self, wait: Callable[[], None]) -> Frame:
        """Give the next message.

        Args:
            wait: Called before each read; returns when there is something to read, or raises.

        Raises:
            EOFError: The other end was closed.
            OSError: It says what it should not.
        """
        while len(self._buffer) < _HEAD.size:
            wait()
            data = os.read(self._fd, _READ_BYTES)
            if not data:
                raise EOFError
            self._buffer += data
        magic, meta_bytes, body_bytes = _HEAD.unpack_from(self._buffer)
        if magic != _MAGIC or meta_bytes > MAX_META_BYTES or body_bytes > MAX_BODY_BYTES:
            raise OSError("no message begins with {!r}".format(self._buffer[: _HEAD.size]))
        whole = self._exactly(_HEAD.size + meta_bytes + body_bytes, wait)
        view = memoryview(whole)[_HEAD.size :]
        try:
            meta = load_json(bytes(view[:meta_bytes]))
        except ValueError as exc:
            raise OSError("a message is not JSON: {}".format(exc)) from exc
        if not isinstance(meta, dict):
            raise OSError("a message is no JSON object")
        return Frame(meta, bytes(view[meta_bytes:]))

    def _exactly(self, count: int, wait: Callable[[], None]) -> Any:
        if len(self._buffer) >= count:
            whole, self._buffer = self._buffer[:count], self._buffer[count:]
            return whole
        data = bytearray(count)
        have = len(self._buffer)
        data[:have] = self._buffer
        self._buffer = b""
        view = memoryview(data)
        while have < count:
            wait()
            more = os.readv(self._fd, [view[have:]])
            if not more:
                raise EOFError
            have += more
        return data
