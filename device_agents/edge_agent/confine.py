"""Keeping a worker off the network, which an ordinary user may do where Linux has seccomp.

No runtime needs a network to run a model, and a model that takes its runtime over shall not
have one. A filter in the kernel lets the process, and all it starts, open sockets of the local
kinds only: those of this machine's files, and the kernel's own, by which device libraries hear
of what is plugged in. It cannot be taken off again.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import struct
from typing import List, Optional, Tuple

__all__ = ["NETWORK_ENV", "close_network"]

#: Set to 1 by the device's owner to leave workers the network.
NETWORK_ENV = "EDGE_AGENT_WORKER_NETWORK"
_PR_SET_NO_NEW_PRIVS, _PR_SET_SECCOMP, _MODE_FILTER = 38, 22, 2
#: The kernel's name of it and its number of ``socket``, by machine and bytes of a pointer.
_ARCHITECTURES = {
    ("x86_64", 8): (0xC000003E, 41),
    ("aarch64", 8): (0xC00000B7, 198),
    ("riscv64", 8): (0xC00000F3, 198),
    ("arm", 4): (0x40000028, 281),
}
_ARM_MACHINES = ("aarch64", "armv6l", "armv7l", "armv8l")
#: It can open sockets as well; the same number everywhere.
_IO_URING_SETUP = 425
_AF_UNIX, _AF_NETLINK = 1, 16
_X32 = 0x40000000
_ALLOW, _ERRNO = 0x7FFF0000, 0x00050000
# instructions of the kernel's packet filter
_LOAD, _IF_EQUAL, _IF_AT_LEAST, _RETURN = 0x20, 0x15, 0x35, 0x06
_AT_NUMBER, _AT_ARCHITECTURE, _AT_FIRST_ARGUMENT = 0, 4, 16


def _architecture() -> Optional[Tuple[int, int]]:
    machine, pointer = platform.machine(), struct.calcsize("P")
    if pointer == 4 and machine in _ARM_MACHINES:
        machine = "arm"
    return _ARCHITECTURES.get((machine, pointer))


def _program(architecture: int, socket: int) -> List[Tuple[int, int, int, int]]:
    """The filter: (code, skip if so, skip if not, value)."""
    return [
        (_LOAD, 0, 0, _AT_ARCHITECTURE),
        (_IF_EQUAL, 0, 9, architecture),  # else: calls of another architecture
        (_LOAD, 0, 0, _AT_NUMBER),
        (_IF_AT_LEAST, 7, 0, _X32),
        (_IF_EQUAL, 7, 0, _IO_URING_SETUP),
        (_IF_EQUAL, 0, 4, socket),
        (_LOAD, 0, 0, _AT_FIRST_ARGUMENT),
        (_IF_EQUAL, 2, 0, _AF_UNIX),
        (_IF_EQUAL, 1, 0, _AF_NETLINK),
        (_RETURN, 0, 0, _ERRNO | errno.EACCES),
        (_RETURN, 0, 0, _ALLOW),
        (_RETURN, 0, 0, _ERRNO | errno.EPERM),
        (_RETURN, 0, 0, _ERRNO | errno.ENOSYS),
    ]


class _Filter(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("program", ctypes.c_void_p)]


def close_network() -> bool:
    """Take the network from this process for good; say whether the kernel did.

    To be called before there are other threads: those that are there keep it.
    """
    found = _architecture()
    if found is None or os.environ.get(NETWORK_ENV) == "1":
        return False
    program = _program(*found)
    code = b"".join(struct.pack("=HBBI", *instruction) for instruction in program)
    held = ctypes.create_string_buffer(code, len(code))
    described = _Filter(len(program), ctypes.addressof(held))
    try:
        prctl = ctypes.CDLL(None, use_errno=True).prctl
        if prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0):
            return False
        done = prctl(_PR_SET_SECCOMP, _MODE_FILTER, ctypes.byref(described), 0, 0)
        return bool(done == 0)
    except (OSError, AttributeError):
        return False
