"""What a disk was told, write by write, and the images that a power cut may leave of it.

QEMU's ``blklogwrites`` keeps every write in the format of Linux's ``dm-log-writes``
(Documentation/admin-guide/device-mapper/log-writes.rst): a header, then records of one sector,
each followed by its data. A write that completed before a flush was asked for survives a cut;
of later ones a disk may have kept any, in any order, the last perhaps torn between sectors.
"""

from __future__ import annotations

import os
import random
import shutil
import struct
import subprocess
from dataclasses import dataclass
from pathlib import Path

from edgesdk.errors import BootstrapError

__all__ = ["DiskWrite", "PowerCut", "crash_image", "read_folder", "read_writes"]

_MAGIC = 0x6A736677736872
_HEADER = struct.Struct("<QQQI")
_RECORD = struct.Struct("<4Q")
_FLUSH, _FUA, _DISCARD, _MARK = 1, 2, 4, 8
_COPY_BYTES = 1 << 20
_SYSTEM_PATHS = "/usr/sbin:/sbin"
_TORN_ONE_IN = 4
_TOOL_S = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class DiskWrite:
    """One record of the log.

    Attributes:
        offset: Where on the disk it writes, in bytes.
        size: How many bytes; 0 for a mere flush.
        at: Where in the log its data is, in bytes.
        end: Where in the log the record ends: it had happened once the log was that long.
        is_flush: All that was written before it is safe from here on.
        is_safe: It is itself safe when it is done (forced unit access).
        is_discard: Its range may be forgotten; nothing is written.
    """

    offset: int
    size: int
    at: int
    end: int
    is_flush: bool
    is_safe: bool
    is_discard: bool


def read_writes(log: Path) -> list[DiskWrite]:
    """Read a log to its end, or to where the emulator was when it was killed.

    The header's count is not used: it is brought up to date only now and then.

    Raises:
        BootstrapError: It is no such log.
    """
    size = log.stat().st_size
    found: list[DiskWrite] = []
    with log.open("rb") as file:
        head = file.read(_HEADER.size)
        if not head:
            return []
        magic, version, _, sector = _HEADER.unpack(head.ljust(_HEADER.size, b"\0"))
        if magic == 0:
            return []  # killed before the first flush
        if magic != _MAGIC or version != 1 or not 512 <= sector <= 65536:
            raise BootstrapError(
                f"cannot read {log}: it is no log of writes in version 1",
                hint="it is what a machine leaves that was told to log its disk's writes",
            )
        position = sector
        while position + sector <= size:
            file.seek(position)
            where, count, flags, _ = _RECORD.unpack(file.read(_RECORD.size))
            if flags & ~(_FLUSH | _FUA | _DISCARD | _MARK) or (not count and not flags):
                break  # a hole: what follows was not written any more
            length = 0 if flags & _DISCARD else count * sector
            end = position + sector + length
            if end > size:
                break
            if not flags & _MARK:
                found.append(
                    DiskWrite(
                        offset=where * sector,
                        size=length,
                        at=position + sector,
                        end=end,
                        is_flush=bool(flags & _FLUSH),
                        is_safe=bool(flags & _FUA),
                        is_discard=bool(flags & _DISCARD),
                    )
                )
            position = end
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class PowerCut:
    """What a cut did to a disk.

    Attributes:
        writes: How many writes the disk had been given.
        safe: How many of them a flush had made safe.
        kept: How many of the others it kept.
        lost: How many of the others it lost, whole or in part.
    """

    writes: int
    safe: int
    kept: int
    lost: int


def crash_image(
    base: Path, log: Path, out: Path, *, writes: list[DiskWrite], dice: random.Random | None
) -> PowerCut:
    """Make the image that a disk may be after a cut at the end of ``writes``.

    Args:
        base: The disk before the first write.
        log: Where the data of the writes is.
        out: The image to make.
        writes: What the disk was given before the cut, as `read_writes` gave it.
        dice: Chooses which un-flushed writes survive, from none to all; None loses them all.
    """
    flushed = max((n + 1 for n, each in enumerate(writes) if each.is_flush), default=0)
    chance = dice.choice((0.0, dice.random(), 1.0)) if dice is not None else 0.0
    kept = lost = safe = 0
    shutil.copyfile(base, out)
    with log.open("rb") as source, out.open("r+b") as image:
        for number, each in enumerate(writes):
            if not each.size:
                continue
            length = each.size
            if number < flushed or each.is_safe:
                safe += 1
            elif dice is not None and dice.random() < chance:
                kept += 1
                if chance < 1.0 and dice.randrange(_TORN_ONE_IN) == 0:
                    length = dice.randrange(0, each.size, 512)
            else:
                lost += 1
                continue
            source.seek(each.at)
            image.seek(each.offset)
            while length:
                data = source.read(min(length, _COPY_BYTES))
                image.write(data)
                length -= len(data)
    total = sum(1 for each in writes if each.size)
    return PowerCut(writes=total, safe=safe, kept=kept, lost=lost)


def read_folder(image: Path, folder: str, out: Path) -> Path | None:
    """Take a folder out of an ext4 image, after its journal was replayed as at a mount.

    Args:
        image: It is changed by the replay.
        folder: An absolute path in it.
        out: An empty folder of this computer that becomes the parent of the copy.

    Returns:
        The copy, or None where the image has no such folder.

    Raises:
        BootstrapError: The file system is damaged, or a program of e2fsprogs is missing.
    """
    _run("e2fsck", "-E", "journal_only", "-p", str(image), allowed=(0, 1))
    _run("e2fsck", "-f", "-n", str(image), allowed=(0,))
    _run("debugfs", "-R", f"rdump {folder} {out}", str(image), allowed=(0,))
    copy = out / folder.rpartition("/")[2]
    return copy if copy.is_dir() else None


def _run(program: str, *arguments: str, allowed: tuple[int, ...]) -> None:
    path = f"{os.environ.get('PATH', os.defpath)}:{_SYSTEM_PATHS}"
    found = shutil.which(program, path=path)
    if found is None:
        raise BootstrapError(
            f"cannot read a disk image: there is no program {program}",
            hint="`sudo apt-get install e2fsprogs` installs it",
        )
    done = subprocess.run(
        [found, *arguments],
        capture_output=True,
        timeout=_TOOL_S,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    if done.returncode not in allowed:
        said = (done.stdout + done.stderr).decode("utf-8", "replace").strip()
        raise BootstrapError(
            f"cannot read the disk image {arguments[-1]}: {program} ended with status "
            f"{done.returncode}",
            hint="a file system with a journal should survive any cut: please report this",
            said=said[-2000:],
        )
