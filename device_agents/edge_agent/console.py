"""People on a line that the agent owns: what is no frame goes to a login, and its output back.

The login runs on a pseudo-terminal of its own, so echo, Ctrl-C and carriage returns work as on
any console. It is started when somebody types, not before: a line on which nobody is stays
quiet. While a host has a session its output waits where it is, in the terminal's buffer of a
few KiB, and the programs wait with it, as they do after Ctrl-S.
"""

from __future__ import annotations

import errno
import os
import select
import socket
import threading
import time
from typing import TYPE_CHECKING, Callable

from edge_agent.login import HelperGone, LoginFailed
from edge_agent.waking import Waker

if TYPE_CHECKING:
    from edge_agent.login import Logins

__all__ = ["Console"]

_READ_BYTES = 1024
_MAX_TYPED_BYTES = 4096
#: How often output is offered again to a line that has no room for it.
_RETRY_S = 0.02
#: A terminal that nobody has for so long is left for good.
_LEFT_S = 10.0
#: A login that ends sooner has failed; the next one then waits, each time twice as long.
_TOO_SOON_S = 5.0
_LONGEST_WAIT_S = 60.0
#: Said before every login, because a host that looks for a login must not take it for getty's.
_BANNER = "an edgesdk agent serves hosts on this line\r\n"
_HINT = "\r\n{}: press Enter to log in; " + _BANNER


class Console:
    """Joins a line's text with a login.

    Args:
        logins: Who starts one.
        say: Prints on the line and tells how many bytes there was room for; must not wait.
        log: Takes a line for the agent's log.
    """

    def __init__(
        self, logins: Logins, say: Callable[[bytes], int], log: Callable[[str], None]
    ) -> None:
        self._logins = logins
        self._say = say
        self._log = log
        self._lock = threading.Lock()
        self._typed = b""
        self._output = b""
        self._held = False
        self._hang_up = False
        self._stopped = False
        self._terminal = -1
        self._began = 0.0
        self._failures = 0
        self._not_before = 0.0
        self._left_since = 0.0
        self._waker = Waker()

    # what the line's thread calls; none of it waits

    def on_text(self, data: bytes) -> None:
        """Take what somebody typed; what a login does not read in time is dropped."""
        with self._lock:
            self._typed = (self._typed + data)[:_MAX_TYPED_BYTES]
        self._waker.wake()

    def on_session(self, is_there: bool) -> None:  # noqa: FBT001 - the signature of a hook
        """Hold the login's output while a host is there."""
        self._held = is_there
        self._waker.wake()

    def hang_up(self) -> None:
        """End the login: the line is gone, and who is at the next one must log in anew."""
        self._hang_up = True
        self._waker.wake()

    def stop(self) -> None:
        """End `serve`, and with it the login."""
        self._stopped = True
        self._waker.wake()

    # the console's own thread

    def serve(self) -> None:
        """Carry bytes until `stop`.

        Raises:
            HelperGone: The helper is gone, so nobody can log in any more.
        """
        self._output = self._hint()
        try:
            while not self._stopped:
                self._turn()
        finally:
            self._end()

    def _turn(self) -> None:
        if self._hang_up:
            self._hang_up = False
            self._end()
            self._output = b""
        if self._output and not self._held:
            self._output = self._output[self._say(self._output) :]
        reading, writing, wait_s = [self._waker], [], None  # type: Tuple[List, List, Any]
        if self._output:
            wait_s = None if self._held else _RETRY_S
        elif self._terminal >= 0 and not self._held:
            reading.append(self._terminal)
        if self._typed and self._terminal >= 0:
            writing.append(self._terminal)
        elif self._typed:
            self._begin()
            return
        ready, writable, _ = select.select(reading, writing, [], wait_s)
        if self._waker in ready:
            self._waker.settle()
        if writable:
            self._type()
        if self._terminal in ready:
            self._listen()

    def _begin(self) -> None:
        """Start a login, unless the last one ended too soon to try again at once."""
        with self._lock:
            typed, self._typed = self._typed, b""
        if time.monotonic() < self._not_before:
            return
        self._began = time.monotonic()
        try:
            self._terminal = self._logins.open()
        except HelperGone as exc:
            self._log("console: {}".format(exc))
            raise
        except LoginFailed as exc:
            self._log("console: {}".format(exc))
            self._output = "\r\n{}\r\n".format(exc).encode("utf-8", "replace")
            self._put_off()
            return
        os.set_blocking(self._terminal, False)
        self._log("console: a login was started")
        self._output += ("\r\n" + _BANNER).encode("ascii")
        if typed.strip():
            # more than the Enter that wakes it up: a name, typed by a person or a program
            with self._lock:
                self._typed = typed.lstrip(b"\r\n") + self._typed

    def _type(self) -> None:
        with self._lock:
            typed = self._typed
        try:
            count = os.write(self._terminal, typed)
        except BlockingIOError:
            # it reads nothing, as a program that computes; a real line would lose this, too
            count = len(typed)
        except OSError:
            count = len(typed)
        with self._lock:
            self._typed = self._typed[count:]

    def _listen(self) -> None:
        try:
            data = os.read(self._terminal, _READ_BYTES)
        except BlockingIOError:
            return
        except OSError as exc:
            if exc.errno != errno.EIO:
                raise
            # nobody has the terminal: `login` lets go of it for a moment, to be alone there
            now = time.monotonic()
            self._left_since = self._left_since or now
            if now - self._left_since < _LEFT_S and self._logins.is_running():
                time.sleep(_RETRY_S)
                return
            data = b""
        self._left_since = 0.0
        if data:
            self._output = data
            return
        self._end()
        if time.monotonic() - self._began < _TOO_SOON_S:
            self._put_off()
        else:
            self._failures = 0
        self._output = self._hint()

    def _put_off(self) -> None:
        self._failures += 1
        wait_s = min(_LONGEST_WAIT_S, 2.0 ** min(self._failures - 1, 10) - 1.0)
        self._not_before = time.monotonic() + wait_s

    def _end(self) -> None:
        if self._terminal >= 0:
            os.close(self._terminal)  # whoever runs there gets SIGHUP
            self._terminal = -1
            self._log("console: the login has ended")

    def _hint(self) -> bytes:
        return _HINT.format(socket.gethostname()).encode("utf-8", "replace")
