"""A virtual machine for tests of what a device does when its power goes."""

from __future__ import annotations

import random
import shutil
from pathlib import Path

from edgesdk.devices.agentpack import pack_agent
from edgesdk.testing.boards.board import VirtualBoard
from edgesdk.testing.disk_writes import PowerCut, crash_image, read_writes
from edgesdk.transport.emulator import DISK_BYTES
from edgesdk.transport.machine import Machine

__all__ = ["STATE_ON_DISK", "VirtualMachine"]

#: The agent's state folder, as a path on the machine's own disk.
STATE_ON_DISK = "/.local/state/edgesdk/agent"
#: ext4 would by itself sync a file that is renamed over another; a missing sync shows without.
_STRICT = "noauto_da_alloc"


class VirtualMachine(Machine):
    """``virtual:vm`` as an object: it stays on between sessions, and its power can be cut.

    A context manager: the block begins when it has booted, and ends with it powered off. In
    between `ssh_url` and `uart_url` are device URLs.

    Attributes:
        base: With ``log_writes``, the disk as it was when the machine was switched on.
        writes: With ``log_writes``, every write since, for `edgesdk.testing.read_writes`.
    """

    def __init__(
        self,
        board: VirtualBoard,
        home: Path,
        *,
        disk_bytes: int = DISK_BYTES,
        log_writes: bool = False,
    ) -> None:
        """Describe a machine; nothing is started yet.

        Args:
            board: What ``set_up_board("vm")`` gave.
            home: A folder for its disk, its console's log, and the log of writes.
            disk_bytes: Size of the disk, where it is made anew.
            log_writes: Log the disk's writes, so that a cut can lose what was not flushed.
        """
        self.base = home / "base.img"
        self.writes = home / "writes.log"
        self._log_writes = log_writes
        super().__init__(
            board.folder,
            home,
            agent=pack_agent().data,
            disk_bytes=disk_bytes,
            writes=self.writes if log_writes else None,
            mount_options=_STRICT if log_writes else "defaults",
        )

    def _prepare(self) -> None:
        super()._prepare()
        if self._log_writes:
            shutil.copyfile(self.disk, self.base)

    def log_bytes(self) -> int:
        """How long the log of writes is: what is told the host later was written before it."""
        return self.writes.stat().st_size

    def cut_power(self, *, seed: int | None = None) -> PowerCut | None:
        """Switch it off at once; the disk keeps what was flushed, and of the rest what falls.

        Args:
            seed: Decides what of the un-flushed writes the disk keeps; None: nothing of it.

        Returns:
            What the disk lost; None without ``log_writes``, when it loses nothing.
        """
        self.kill()
        if not self._log_writes:
            return None
        dice = None if seed is None else random.Random(seed)  # noqa: S311 - no secret
        after = self.home / "after.img"
        cut = crash_image(
            self.base, self.writes, after, writes=read_writes(self.writes), dice=dice
        )
        after.replace(self.disk)
        return cut
