"""The seam between sessions and links: a byte stream to one agent."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

__all__ = [
    "AgentImage",
    "Channel",
    "FileTaker",
    "LinkTraits",
    "ManyLanes",
    "NoisyChannel",
    "OnPassword",
]

#: Takes a prompt, gives the secret, or None when nobody answers.
OnPassword = Callable[[str], str | None]


class AgentImage(Protocol):
    """The agent as one file, for the links that start it."""

    @property
    def data(self) -> bytes:
        """The bytes of the zipapp."""

    @property
    def sha256(self) -> str:
        """Their SHA-256, in hexadecimal."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkTraits:
    """What a session has to know of a link to use it well.

    Attributes:
        chunk_bytes: Blob bytes in one ``put`` frame.
        window_bytes: Blob bytes that may be under way without an answer.
        silence_s: How long the agent may be silent before the link counts as dead.
        compress: Chunks that shrink are sent as zlib, because the link is slower than zlib.
        lane_bytes: What the link lets be under way on one channel, 0 where it sets no limit. A
            channel with a limit can open further lanes, see `ManyLanes`.
    """

    chunk_bytes: int
    window_bytes: int
    silence_s: float = 15.0
    compress: bool = False
    lane_bytes: int = 0


class Channel(Protocol):
    """A byte stream to one agent that loses nothing; it knows nothing of frames.

    One thread reads, one may write at the same time. Errors are `edgesdk.errors.ChannelError`
    and its kin, with the channel's ``name`` in the text. ``notes`` is what a person should know
    of the link although it works.
    """

    name: str
    traits: LinkTraits
    notes: tuple[str, ...]

    def read(self, *, timeout_s: float) -> bytes:
        """Give at least one byte, as many as are there.

        Raises:
            ChannelTimeout: Nothing came within ``timeout_s``.
            ChannelClosed: The other end is gone; the text says why where that is known.
        """

    def write(self, data: bytes, *, timeout_s: float) -> None:
        """Hand over all of ``data``.

        Raises:
            ChannelTimeout: The link took no bytes for ``timeout_s``.
            ChannelClosed: The other end is gone.
        """

    def close(self) -> None:
        """End the channel and what it started (the agent's child process); may be repeated."""


@runtime_checkable
class FileTaker(Protocol):
    """A channel that takes bytes right from a file, and delivers all bytes as they are.

    So frames over it may be bare, see `edgesdk.wire.frames`.
    """

    def write_file(
        self,
        head: bytes,
        descriptor: int,
        offset: int,
        size: int,
        tail: bytes,
        *,
        timeout_s: float,
    ) -> None:
        """Hand over ``head``, ``size`` bytes of an open file from ``offset`` on, and ``tail``.

        Raises:
            ChannelTimeout: The link took no bytes for ``timeout_s``.
            ChannelClosed: The other end is gone.
            OSError: The file cannot be read, or has become too short.
        """


@runtime_checkable
class ManyLanes(Protocol):
    """A channel that can open more of its kind to the agent it reaches."""

    def open_lane(self, *, timeout_s: float) -> Channel:
        """Reach the same agent once more, for ``put`` alone; may be called from any thread.

        Raises:
            LinkError: It cannot be reached again, or takes no further lane.
        """


@runtime_checkable
class NoisyChannel(Protocol):
    """A channel over a link that others print on, or that spoils bytes."""

    @property
    def noise_bytes(self) -> int:
        """Bytes that came and were not the agent's: boot messages, or a bad cable."""

    @property
    def noise_tail(self) -> str:
        """The last of them, as printable text."""
