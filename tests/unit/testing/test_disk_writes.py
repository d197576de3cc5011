"""The log of a disk's writes: read whatever a killed emulator left, and turned into images."""

from __future__ import annotations

import contextlib
import random
import struct
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgesdk.errors import BootstrapError
from edgesdk.testing import crash_image, read_writes

SECTOR = 512
FLUSH, FUA, DISCARD, MARK = 1, 2, 4, 8


def log_of(*records: tuple[int, bytes, int]) -> bytes:
    """A log as the emulator writes it, of (sector, data, flags)."""
    found = struct.pack("<QQQI", 0x6A736677736872, 1, len(records), SECTOR).ljust(SECTOR, b"\0")
    for sector, data, flags in records:
        head = struct.pack("<4Q", sector, len(data) // SECTOR, flags, 0)
        found += head.ljust(SECTOR, b"\0") + data
    return found


def filled(letter: str) -> bytes:
    return letter.encode() * SECTOR


@pytest.fixture
def base(tmp_path: Path) -> Path:
    path = tmp_path / "base.img"
    path.write_bytes(bytes(8 * SECTOR))
    return path


def image_of(
    tmp_path: Path, base: Path, log: bytes, *, dice: random.Random | None = None
) -> tuple[bytes, tuple[int, int, int, int]]:
    path = tmp_path / "log"
    path.write_bytes(log)
    out = tmp_path / "out.img"
    cut = crash_image(base, path, out, writes=read_writes(path), dice=dice)
    return out.read_bytes(), (cut.writes, cut.safe, cut.kept, cut.lost)


def test_only_what_was_flushed_is_sure_to_be_there(tmp_path: Path, base: Path) -> None:
    log = log_of((1, filled("a"), 0), (0, b"", FLUSH), (2, filled("b"), 0))
    image, counts = image_of(tmp_path, base, log)
    assert image == bytes(SECTOR) + filled("a") + bytes(6 * SECTOR)
    assert counts == (2, 1, 0, 1)


def test_a_write_that_forces_its_unit_is_safe_by_itself(tmp_path: Path, base: Path) -> None:
    log = log_of((1, filled("a"), 0), (2, filled("b"), FUA))
    image, counts = image_of(tmp_path, base, log)
    assert image[SECTOR : 3 * SECTOR] == bytes(SECTOR) + filled("b")
    assert counts == (2, 1, 0, 1)


def test_what_was_not_flushed_may_be_kept_in_part(tmp_path: Path, base: Path) -> None:
    log = log_of(*((n, filled("abcdefgh"[n]), 0) for n in range(8)))
    images = {image_of(tmp_path, base, log, dice=random.Random(seed))[0] for seed in range(60)}
    assert bytes(8 * SECTOR) in images
    assert b"".join(filled(each) for each in "abcdefgh") in images
    assert len(images) > 10
    for image in images:
        for n in range(8):
            sector = image[n * SECTOR : (n + 1) * SECTOR]
            assert sector in (bytes(SECTOR), filled("abcdefgh"[n]))


def test_a_later_write_of_the_same_place_wins(tmp_path: Path, base: Path) -> None:
    log = log_of((0, filled("a"), 0), (0, filled("b"), 0), (0, b"", FLUSH))
    assert image_of(tmp_path, base, log)[0][:SECTOR] == filled("b")


def test_marks_and_discards_write_nothing(tmp_path: Path, base: Path) -> None:
    mark = struct.pack("<4Q", 0, 0, MARK, 0).ljust(SECTOR, b"\0")
    discard = struct.pack("<4Q", 0, 8, DISCARD, 0).ljust(SECTOR, b"\0")
    log = log_of((1, filled("a"), 0)) + mark + discard + log_of((0, b"", FLUSH))[SECTOR:]
    image, counts = image_of(tmp_path, base, log)
    assert image[SECTOR : 2 * SECTOR] == filled("a")
    assert counts == (1, 1, 0, 0)


def test_a_log_that_ends_in_the_middle_is_read_to_there(tmp_path: Path) -> None:
    whole = log_of((1, filled("a"), 0), (2, filled("b"), 0))
    path = tmp_path / "log"
    for length in range(0, len(whole), 100):
        path.write_bytes(whole[:length])
        found = read_writes(path)
        assert [each.offset // SECTOR for each in found] == [1, 2][: len(found)]
        assert all(each.end <= length for each in found)
    hole = whole[: 3 * SECTOR] + bytes(2 * SECTOR) + log_of((3, filled("c"), 0))[SECTOR:]
    path.write_bytes(hole)
    assert [each.offset // SECTOR for each in read_writes(path)] == [1]


@given(st.binary(max_size=3000))
def test_any_bytes_are_a_log_or_refused(data: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "log"
        for text in (data, log_of() + data):
            path.write_bytes(text)
            found = []
            with contextlib.suppress(BootstrapError):  # it is no such log
                found = read_writes(path)
            assert all(0 < each.end <= len(text) for each in found)
