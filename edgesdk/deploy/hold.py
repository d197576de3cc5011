"""Having a device to oneself while several requests belong together."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from edgesdk.devices.session import Session
from edgesdk.errors import DeviceError, EdgeError, LinkError
from edgesdk.wire import codes

__all__ = ["hold_device"]


@contextmanager
def hold_device(
    session: Session,
    *,
    doing: str,
    wait_s: float = 0.0,
    on_wait: Callable[[str], None] | None = None,
) -> Iterator[None]:
    """Keep other hosts from changing what is deployed while the block runs; may be nested.

    The device lets go by itself when this conversation ends, however it does.

    Args:
        session: The device.
        doing: What for; others are told.
        wait_s: How long to wait for another host to be done, in seconds.
        on_wait: Told, before a wait begins, who holds it.

    Raises:
        DeviceError: Another host holds it: the text says who, for how long and for what.
        LinkError: The link broke.
    """
    if session.is_holding:
        yield
        return
    silence_s = session.channel.traits.silence_s
    try:
        session.request("hold", {"doing": doing}, timeout_s=silence_s)
    except DeviceError as exc:
        if wait_s <= 0 or exc.facts.get("code") != codes.BUSY:
            raise
        if on_wait is not None:
            on_wait(str(exc))
        asks = {"doing": doing, "wait_s": wait_s}
        session.request("hold", asks, timeout_s=wait_s + silence_s)
    session.is_holding = True
    try:
        yield
    except EdgeError:
        _let_go(session)
        raise
    except BaseException:  # an answer may be far, and the hold ends with the session anyway
        session.is_holding = False
        raise
    _let_go(session)


def _let_go(session: Session) -> None:
    session.is_holding = False
    with contextlib.suppress(LinkError):  # broken, and so it is released already
        session.request("release")
