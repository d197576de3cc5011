"""The one exception with which the agent says no, and how system errors become one."""

from __future__ import annotations

import errno
from typing import Any, Optional

from edgesdk.wire import codes

__all__ = ["Cancelled", "Refused", "from_os_error"]

_NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_READ_ONLY = (errno.EROFS, errno.EACCES, errno.EPERM)
_FAILING = (errno.EIO, errno.ENXIO, errno.ENODEV, errno.EUCLEAN)


class Refused(Exception):
    """A request that is not done; it becomes the reply. ``code`` is one of `wire.codes`."""

    def __init__(self, code: str, detail: str, **facts: Any) -> None:
        super().__init__(detail)
        self.code = code
        self.facts = facts


class Cancelled(Exception):
    """The one who asked is gone; nobody waits for a reply."""


def from_os_error(exc: OSError, doing: str) -> Optional[Refused]:
    """Turn a full, unwritable or failing disk into a refusal; anything else gives None."""
    text = "cannot {}: {}".format(doing, exc.strerror or exc)
    if exc.errno in _NO_SPACE:
        return Refused(codes.NO_SPACE, text, errno=errno.errorcode[exc.errno])
    if exc.errno in _READ_ONLY:
        return Refused(codes.READ_ONLY, text, errno=errno.errorcode[exc.errno])
    if exc.errno in _FAILING:
        return Refused(codes.DISK_ERROR, text, errno=errno.errorcode[exc.errno])
    return None
