"""Messages between agent and worker: whole however they arrive, and bounded."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    reading, writing = os.pipe()
    yield reading, writing
    for fd in (reading, writing):
        os.close(fd)


def no_wait() -> None:
    """Reads block."""


@pytest.mark.parametrize("step", [1, 7, 1 << 16])
def test_messages_are_whole_however_they_arrive(
    agent_modules: Callable[[str], Any], pipe: tuple[int, int], step: int
) -> None:
    pipes = agent_modules("edge_agent.pipes")
    body = os.urandom(3000)
    sent = [
        ({"op": "a"}, b""),
        ({"op": "b", "text": "é"}, body),
        ({}, b"x"),
        ({"op": "c"}, body),
    ]
    data = b"".join(
        bytes(piece)
        for meta, body in sent
        for piece in pipes.message(meta, [body[:5], body[5:]])
    )

    def write() -> None:
        for start in range(0, len(data), step):
            os.write(pipe[1], data[start : start + step])

    thread = threading.Thread(target=write)
    thread.start()
    reader = pipes.PipeReader(pipe[0])
    for meta, body in sent:
        frame = reader.receive(no_wait)
        assert (frame.meta, frame.body) == (meta, body)
    thread.join()


def test_large_messages_go_through_a_narrow_pipe(
    agent_modules: Callable[[str], Any], pipe: tuple[int, int]
) -> None:
    pipes = agent_modules("edge_agent.pipes")
    body = os.urandom(5 << 20)
    pieces = pipes.message({"op": "run"}, [body[:100], b"", body[100:]])

    def write() -> None:
        while pieces:
            pipes.write_some(pipe[1], pieces)

    thread = threading.Thread(target=write)
    thread.start()
    frame = pipes.PipeReader(pipe[0]).receive(no_wait)
    thread.join()
    assert frame.body == body


@pytest.mark.parametrize(
    "data",
    [
        b"free(): invalid pointer\n",
        b"EDGW\xff\xff\xff\xff\0\0\0\0",
        b"EDGW\0\0\0\2\xff\xff\xff\xff{}",
        b"EDGW\0\0\0\2\0\0\0\0[]",
        b"EDGW\0\0\0\2\0\0\0\0{{",
        b"EDGW\0\0\0\2\0\0\0\0\xff\xff",
    ],
)
def test_what_is_no_message_is_an_error(
    agent_modules: Callable[[str], Any], pipe: tuple[int, int], data: bytes
) -> None:
    pipes = agent_modules("edge_agent.pipes")
    os.write(pipe[1], data)
    with pytest.raises(OSError, match="message"):
        pipes.PipeReader(pipe[0]).receive(no_wait)


def test_end_of_the_other_side_is_noticed_within_a_message(
    agent_modules: Callable[[str], Any],
) -> None:
    pipes = agent_modules("edge_agent.pipes")
    reading, writing = os.pipe()
    os.write(writing, bytes(pipes.message({"op": "run"}, [b"1234"])[0]))
    os.close(writing)
    with pytest.raises(EOFError):
        pipes.PipeReader(reading).receive(no_wait)
    os.close(reading)


def test_what_is_too_large_is_not_sent(agent_modules: Callable[[str], Any]) -> None:
    pipes = agent_modules("edge_agent.pipes")
    with pytest.raises(ValueError, match="is too large"):
        pipes.message({}, [bytes(64 << 20), b"x"])
    with pytest.raises(ValueError, match="is too large"):
        pipes.message({"a": "x" * (1 << 20)}, [])
