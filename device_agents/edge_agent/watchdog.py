"""Proof for the service manager that the agent is not stuck.

The watchdog is fed while no promise of `edge_agent.vitals` is overdue, no thread that has to
live is dead, and a question put through the agent's own socket is answered. Otherwise it is
not fed any more, and systemd ends and restarts the agent.

The messages are those of sd_notify(3): text in a datagram to the socket in ``$NOTIFY_SOCKET``.
"""

from __future__ import annotations

import contextlib
import faulthandler
import os
import socket
import sys
import threading
from typing import Any, Callable, Optional

from edge_agent.vitals import Vitals, vitals

__all__ = ["Notifier", "Watchdog"]

_SEND_S = 1.0
#: The manager acts after a whole period; three questions fit into it.
_FEEDS_PER_PERIOD = 3.0


class Notifier:
    """Tells the service manager how the agent is; without one it says nothing."""

    def __init__(self, address: str = "", watchdog_s: Optional[float] = None) -> None:
        self._address = "\0" + address[1:] if address.startswith("@") else address
        self.watchdog_s = watchdog_s

    @classmethod
    def from_environment(cls) -> Notifier:
        """Take the manager's address from the environment, where no child finds it then."""
        address = os.environ.pop("NOTIFY_SOCKET", "")
        period_us = os.environ.pop("WATCHDOG_USEC", "")
        process = os.environ.pop("WATCHDOG_PID", "")
        if not address.startswith(("/", "@")):
            return cls()
        watchdog_s = None
        if period_us.isdigit() and int(period_us) > 0 and process in ("", str(os.getpid())):
            watchdog_s = int(period_us) / 1e6
        return cls(address, watchdog_s)

    @property
    def is_there(self) -> bool:
        """Say whether a service manager listens."""
        return bool(self._address)

    def tell(self, **fields: Any) -> bool:
        """Send fields such as ``READY=1`` and say whether they went out; never raises."""
        if not self._address:
            return False
        lines = ["{}={}".format(k, str(v).replace("\n", " ")) for k, v in fields.items()]
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as link:
                link.settimeout(_SEND_S)
                link.sendto("\n".join(lines).encode("utf-8", "replace"), self._address)
        except OSError:
            return False
        return True


class Watchdog:
    """Feeds the manager's watchdog from a thread of its own, as long as there is no fault."""

    def __init__(
        self,
        notifier: Notifier,
        ask: Callable[[float], bool],
        log: Callable[[str], None],
        watched: Vitals = vitals,
    ) -> None:
        self._notifier = notifier
        self._ask = ask
        self._log = log
        self._vitals = watched
        self._was_well = True
        self._over = threading.Event()

    def start(self) -> None:
        """Begin, where the manager has asked for it."""
        if self._notifier.watchdog_s is not None:
            threading.Thread(target=self._feed_all, name="watchdog", daemon=True).start()

    def stop(self) -> None:
        """Feed no more."""
        self._over.set()

    def look(self) -> bool:
        """Feed it once, if all is well, and say whether that was so."""
        period_s = self._notifier.watchdog_s or 60.0
        found = self._vitals.faults()
        if not found and not self._ask(period_s / _FEEDS_PER_PERIOD):
            found = ["the agent does not answer on its own socket"]
        if not found:
            self._notifier.tell(WATCHDOG=1)
            if not self._was_well:
                self._log("watchdog: well again")
                self._notifier.tell(STATUS="serving")
        elif self._was_well:
            text = "; ".join(found)[:300]
            self._notifier.tell(STATUS="stuck: " + text)
            with contextlib.suppress(OSError, ValueError, AttributeError):
                faulthandler.dump_traceback(file=sys.stderr, all_threads=True)
            self._log("watchdog: not fed: " + text)
        self._was_well = not found
        return self._was_well

    def _feed_all(self) -> None:
        period_s = self._notifier.watchdog_s or 60.0
        while not self._over.is_set():
            self.look()
            self._over.wait(period_s / _FEEDS_PER_PERIOD)
