"""From root to an ordinary user, for a daemon that root starts because of its console."""

from __future__ import annotations

import contextlib
import ctypes
import os
import pwd
from typing import Optional

__all__ = ["give_up_rights"]

_PR_SET_NO_NEW_PRIVS = 38


def give_up_rights(name: str, *, tty: Optional[str]) -> None:
    """Become the user ``name`` for good, and let that user have the line.

    Args:
        name: Of an account.
        tty: The serial line, which belongs to root or to whoever logged in last.

    Raises:
        ValueError: This is not root, or there is no such account.
        OSError: The line cannot be opened.
    """
    if os.geteuid() != 0:
        raise ValueError("only root can start it as another user ({})".format(name))
    try:
        account = pwd.getpwnam(name)
    except KeyError:
        raise ValueError("there is no user {}".format(name)) from None
    if account.pw_uid == 0:
        return
    if tty is not None:
        flags = os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK | os.O_CLOEXEC
        fd = os.open(tty, flags)
        try:
            if not os.isatty(fd):
                raise ValueError("{} is no serial line".format(tty))
            os.fchown(fd, account.pw_uid, -1)
            os.fchmod(fd, 0o600)
        finally:
            os.close(fd)
    os.initgroups(name, account.pw_gid)
    os.setgid(account.pw_gid)
    os.setuid(account.pw_uid)
    for variable in [each for each in os.environ if each.startswith("XDG_")]:
        del os.environ[variable]
    os.environ.update(HOME=account.pw_dir, USER=name, LOGNAME=name)
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
