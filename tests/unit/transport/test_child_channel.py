"""Pipes to a child: everything arrives, from memory or a file, and closing harms no thread."""

from __future__ import annotations

import errno
import hashlib
import os
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgesdk.errors import ChannelClosed, ChannelTimeout, EdgeError
from edgesdk.transport.base import FileTaker, LinkTraits
from edgesdk.transport.child_channel import ChildChannel

TRAITS = LinkTraits(chunk_bytes=1024, window_bytes=4096)
ECHO = "import os\nwhile d := os.read(0, 65536): os.write(1, d)"
HASH = "import sys, hashlib; print(hashlib.sha256(sys.stdin.buffer.read()).hexdigest())"
DEAF = "import sys, time; sys.stdout.write('x'); sys.stdout.flush(); time.sleep(60)"


class Plain(ChildChannel):
    def _why_gone(self, doing: str, status: int | None, tail: str) -> EdgeError:
        return ChannelClosed(f"cannot {doing} {self.name}: status {status}: {tail}")


def child(code: str) -> Plain:
    return Plain([sys.executable, "-c", code], name="child:", traits=TRAITS)


@pytest.fixture
def payload(tmp_path: Path) -> Iterator[tuple[int, bytes]]:
    data = os.urandom(3_000_000)
    (tmp_path / "payload").write_bytes(data)
    descriptor = os.open(tmp_path / "payload", os.O_RDONLY)
    yield descriptor, data
    os.close(descriptor)


def read_all(channel: Plain) -> bytes:
    found = b""
    while True:
        try:
            found += channel.read(timeout_s=20)
        except ChannelClosed:
            return found


@pytest.mark.parametrize("moves", [True, False], ids=["moved", "copied"])
def test_piece_of_a_file_arrives_between_its_head_and_its_tail(
    payload: tuple[int, bytes], monkeypatch: pytest.MonkeyPatch, moves: bool
) -> None:
    descriptor, data = payload
    if not moves:

        def refuse(*arguments: object) -> int:
            raise OSError(errno.ENOTSOCK, "a pipe is no socket")

        monkeypatch.setattr(os, "sendfile", refuse)
    channel = child(HASH)
    assert isinstance(channel, FileTaker)
    channel.write_file(b"head", descriptor, 1000, 2_500_000, b"tail", timeout_s=20)
    channel.write(data, timeout_s=20)
    channel.end_input()
    whole = b"head" + data[1000:2_501_000] + b"tail" + data
    assert read_all(channel).decode().strip() == hashlib.sha256(whole).hexdigest()
    channel.close()


def test_file_that_has_become_too_short_is_said(payload: tuple[int, bytes]) -> None:
    descriptor, data = payload
    channel = child(HASH)
    with pytest.raises(OSError, match="too short"):
        channel.write_file(b"", descriptor, len(data) - 10, 11, b"", timeout_s=20)
    channel.close()


def test_child_that_takes_nothing_is_a_timeout_and_one_that_is_gone_a_closed_channel(
    payload: tuple[int, bytes],
) -> None:
    descriptor, data = payload
    channel = child(DEAF)
    assert channel.read(timeout_s=20) == b"x"
    with pytest.raises(ChannelTimeout, match=r"no byte was taken for 0\.1 s"):
        channel.write_file(b"", descriptor, 0, len(data), b"", timeout_s=0.1)
    with pytest.raises(ChannelTimeout, match="no data for"):
        channel.read(timeout_s=0.1)
    os.kill(channel.pid, 9)
    with pytest.raises(ChannelClosed, match="status -9"):
        channel.write_file(b"", descriptor, 0, len(data), b"", timeout_s=20)
    with pytest.raises(ChannelClosed, match="status -9"):
        channel.read(timeout_s=20)
    channel.close()
    with pytest.raises(ChannelClosed, match="closed on this side"):
        channel.write(b"x", timeout_s=1)


@pytest.mark.parametrize("code", [ECHO, DEAF], ids=["lively", "deaf"])
def test_closing_ends_threads_that_read_and_write(code: str) -> None:
    channel = child(code)
    assert code == ECHO or channel.read(timeout_s=20) == b"x"
    seen: list[BaseException] = []

    def use(step: str) -> None:
        try:
            while True:
                if step == "read":
                    channel.read(timeout_s=30)
                else:
                    channel.write(bytes(1 << 20), timeout_s=30)
        except BaseException as exc:  # noqa: BLE001 - whatever it is, the test looks at it
            seen.append(exc)

    threads = [threading.Thread(target=use, args=(step,)) for step in ("read", "write")]
    for thread in threads:
        thread.start()
    time.sleep(0.2)
    begun = time.monotonic()
    channel.close()
    channel.close()
    for thread in threads:
        thread.join(10)
    assert time.monotonic() - begun < 10
    assert [type(exc) for exc in seen] == [ChannelClosed, ChannelClosed]
