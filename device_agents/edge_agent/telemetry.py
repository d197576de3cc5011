"""What many modules ask of the machine; `edge_agent.sampling` watches it over a time."""

from __future__ import annotations

import os
import re
from typing import Optional

from edge_agent.sysfiles import read_text

__all__ = ["emulated", "mem_available_bytes", "read_text"]

_NAME = re.compile(r"[a-z0-9-]{1,32}\Z")


def mem_available_bytes() -> Optional[int]:
    """Memory that can be had without swapping, or None."""
    for line in (read_text("/proc/meminfo") or "").splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return None


def emulated() -> Optional[str]:
    """What emulates this process's machine, or None where it runs on a processor.

    qemu's user mode answers for ``/proc/self/exe`` and ``/proc/<pid>/exe`` with the program it
    runs, but not for the same link of a thread, which names the emulator itself. A machine that
    is emulated whole says so on its kernel's command line: ``edgesdk.emulated=NAME``.
    """
    for word in (read_text("/proc/cmdline") or "").split():
        key, _, value = word.partition("=")
        if key == "edgesdk.emulated" and _NAME.match(value):
            return value
    try:
        program = os.readlink("/proc/thread-self/exe")
    except OSError:
        return None
    folder, name = os.path.split(program)
    ours = name.startswith("qemu-") or os.path.basename(folder) == "qemu-binfmt"
    return "qemu-user" if ours else None
