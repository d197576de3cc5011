"""A channel whose near end is a program that we started, over pipes.

The child sees the end of its input when this process goes away, however it goes, and leaves.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import select
import signal
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping, Sequence

from edgesdk.errors import ChannelClosed, ChannelTimeout, EdgeError
from edgesdk.transport.base import LinkTraits

__all__ = ["ChildChannel", "signal_name"]

_READ_BYTES = 1 << 20
_STDERR_KEPT_BYTES = 4096
_CLOSE_GRACE_S = 3.0
_WRITER_GRACE_S = 0.2
#: What may wait in the pipe to the child: the fewer changes between the two, the better.
_PIPE_BYTES = 256 << 10
#: Said by a system, or a file system, that moves no file into a pipe: then it is copied.
_CANNOT_MOVE = {errno.EINVAL, errno.ENOSYS, errno.ENOTSOCK, errno.EOPNOTSUPP}


class ChildChannel:
    """Pipes to a child process. A kind of link says what its child is and why it may end.

    Args:
        command: The program and its arguments; no shell is involved.
        name: How messages call the channel.
        traits: What a session has to know of the link.
        env: The child's environment; this process's where there is none.

    Raises:
        OSError: The program cannot be started.
    """

    def __init__(
        self,
        command: Sequence[str],
        *,
        name: str,
        traits: LinkTraits,
        env: Mapping[str, str] | None = None,
    ) -> None:
        self.name = name
        self.traits = traits
        self.notes: tuple[str, ...] = ()
        self._stderr_tail = b""
        self._stderr_lock = threading.Lock()
        self._pending = b""
        # no descriptor is closed while another thread uses it: its number may be given away
        self._reading, self._writing = threading.Lock(), threading.Lock()
        self._is_closing = False
        self._closed = False
        # a session of its own: Ctrl-C on our terminal is ours to handle, the agent sees EOF;
        # and no program in it can ask on our terminal for anything
        self._child = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,
            start_new_session=True,
            env=env,
        )
        assert self._child.stdin
        assert self._child.stdout
        assert self._child.stderr
        self._in = self._child.stdin.fileno()
        self._out = self._child.stdout.fileno()
        self._err = self._child.stderr.fileno()
        for descriptor in (self._in, self._out, self._err):
            os.set_blocking(descriptor, False)
        if hasattr(fcntl, "F_SETPIPE_SZ"):
            with contextlib.suppress(OSError):  # this user may have too many of them
                fcntl.fcntl(self._in, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)

    @property
    def pid(self) -> int:
        """The child's process id."""
        return self._child.pid

    @property
    def stderr_tail(self) -> str:
        """The last the child wrote to its standard error."""
        self._drain_stderr()
        return self._stderr_tail.decode("utf-8", "replace").strip()

    def _drain_stderr(self) -> bool:
        """Read what is there; say whether more may come."""
        with self._stderr_lock:
            while not self._closed:
                try:
                    data = os.read(self._err, 65536)
                except BlockingIOError:
                    return True
                if not data:
                    return False
                self._stderr_tail = (self._stderr_tail + data)[-_STDERR_KEPT_BYTES:]
        return False

    def _wait(self, descriptor: int, event: int, deadline: float) -> bool:
        """Wait until ``descriptor`` is ready, emptying stderr meanwhile; False: too late."""
        watch_stderr = True
        while True:
            poll = select.poll()
            poll.register(descriptor, event)
            if watch_stderr:
                poll.register(self._err, select.POLLIN)
            ready = dict(poll.poll(max(0.0, deadline - time.monotonic()) * 1000))
            if self._err in ready:
                watch_stderr = self._drain_stderr()
            if descriptor in ready:
                return True
            if time.monotonic() >= deadline:
                return False

    def _ended(self) -> int | None:
        """Give the child a moment to end, and its status if it did."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._child.wait(timeout=1.0)
        return self._child.returncode

    def _gone(self, doing: str) -> EdgeError:
        """Say how the child ended."""
        if self._is_closing:
            return ChannelClosed(f"cannot {doing} {self.name}: it was closed on this side")
        return self._why_gone(doing, self._ended(), self.stderr_tail)

    def _why_gone(self, doing: str, status: int | None, tail: str) -> EdgeError:
        """Say why the link has ended: each kind of link knows its own reasons.

        Args:
            doing: What was to be done, as in "read from".
            status: What the child ended with; None if it has only closed its end.
            tail: The last of its standard error.
        """
        raise NotImplementedError

    def give_back(self, data: bytes) -> None:
        """Let the next `read` give ``data`` first."""
        self._pending = data + self._pending

    def read(self, *, timeout_s: float) -> bytes:
        """Give at least one byte; see `edgesdk.transport.base.Channel`."""
        if self._pending:
            data, self._pending = self._pending, b""
            return data
        with self._reading:
            if self._is_closing:
                raise self._gone("read from")
            if not self._wait(self._out, select.POLLIN, time.monotonic() + timeout_s):
                raise ChannelTimeout(
                    f"cannot read from {self.name}: no data for {timeout_s:.3g} s",
                    timeout_s=timeout_s,
                )
            data = os.read(self._out, _READ_BYTES)
        if not data:
            raise self._gone("read from")
        return data

    def write(self, data: bytes, *, timeout_s: float) -> None:
        """Hand over all of ``data``; see `edgesdk.transport.base.Channel`."""
        with self._writing:
            self._write(data, timeout_s)

    def _write(self, data: bytes, timeout_s: float) -> None:
        view = memoryview(data)
        while view:
            with self._taking(timeout_s):
                view = view[os.write(self._in, view) :]

    @contextlib.contextmanager
    def _taking(self, timeout_s: float) -> Iterator[None]:
        """Have one call that writes; where the child takes nothing yet, wait until it does.

        Raises:
            ChannelTimeout: That took too long.
            ChannelClosed: The child is gone.
        """
        if self._is_closing:
            raise self._gone("write to")
        try:
            yield
        except BlockingIOError:
            if not self._wait(self._in, select.POLLOUT, time.monotonic() + timeout_s):
                raise ChannelTimeout(
                    f"cannot write to {self.name}: no byte was taken for {timeout_s:g} s",
                    timeout_s=timeout_s,
                ) from None
        except (BrokenPipeError, ConnectionResetError):
            raise self._gone("write to") from None

    def write_file(
        self,
        head: bytes,
        descriptor: int,
        offset: int,
        size: int,
        tail: bytes,
        *,
        timeout_s: float,
    ) -> None:
        """Hand over a piece of a file between two; see `edgesdk.transport.base.FileTaker`.

        The system moves the file's pages into the pipe: they are not copied here.
        """
        with self._writing:
            self._write(head, timeout_s)
            end = offset + size
            while offset < end:
                offset += self._move(descriptor, offset, end - offset, timeout_s)
            self._write(tail, timeout_s)

    def _move(self, descriptor: int, offset: int, size: int, timeout_s: float) -> int:
        """Move some of a file into the pipe, or wait for room; give how much."""
        moved = 0
        try:
            with self._taking(timeout_s):
                moved = os.sendfile(self._in, descriptor, offset, size)
                if not moved:
                    raise OSError(errno.EIO, "the file has become too short")
        except OSError as exc:
            if exc.errno not in _CANNOT_MOVE:
                raise
            data = os.pread(descriptor, min(size, _PIPE_BYTES), offset)
            if not data:
                raise OSError(errno.EIO, "the file has become too short") from None
            self._write(data, timeout_s)
            moved = len(data)
        return moved

    def end_input(self) -> None:
        """Let the child see the end of its input; what it says can still be read."""
        assert self._child.stdin
        if not self._writing.acquire(timeout=_WRITER_GRACE_S):
            self._child.terminate()  # another thread waits for it to take more
            self._writing.acquire()
        try:
            self._child.stdin.close()
        finally:
            self._writing.release()

    def close(self) -> None:
        """Let the agent see the end of its input, wait for it, stop it if it stays."""
        if self._is_closing:
            return
        self._is_closing = True
        assert self._child.stdout
        assert self._child.stderr
        self.end_input()
        # another thread that reads sees the end when the child does
        is_ours = self._reading.acquire(blocking=False)
        try:
            self._leave(drain=is_ours)
        finally:
            if not is_ours:
                self._reading.acquire()
            with self._stderr_lock:
                self._closed = True
            self._child.stdout.close()
            self._child.stderr.close()
            self._reading.release()

    def _leave(self, *, drain: bool) -> None:
        """Wait for the child; what it still says is thrown away so that it cannot block."""
        deadline = time.monotonic() + _CLOSE_GRACE_S
        while self._child.poll() is None and time.monotonic() < deadline:
            if not drain:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    self._child.wait(timeout=0.05)
                continue
            poll = select.poll()
            poll.register(self._out, select.POLLIN)
            for descriptor, _ in poll.poll(20):
                with contextlib.suppress(BlockingIOError):
                    if not os.read(descriptor, _READ_BYTES):
                        with contextlib.suppress(subprocess.TimeoutExpired):
                            self._child.wait(timeout=max(0.0, deadline - time.monotonic()))
            self._drain_stderr()
        for stop in (self._child.terminate, self._child.kill):
            if self._child.poll() is None:
                stop()
                with contextlib.suppress(subprocess.TimeoutExpired):
                    self._child.wait(timeout=2.0)


def signal_name(number: int) -> str:
    """Name a signal, as in ``SIGKILL``."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return str(number)
