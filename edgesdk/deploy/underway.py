"""What is under way on one link of a push, and how much may be."""

from __future__ import annotations

from dataclasses import dataclass

from edgesdk.deploy.uploads import Upload
from edgesdk.devices.session import Session

__all__ = ["InFlight", "Lane"]


@dataclass(frozen=True, slots=True, kw_only=True)
class InFlight:
    """A chunk without an answer: its range in the blob, and what it took on the wire."""

    upload: Upload
    start: int
    end: int
    wire_bytes: int
    epoch: int

    @property
    def size(self) -> int:
        """How many bytes of the blob it carries."""
        return self.end - self.start


class Lane:
    """One session that chunks travel over, and what is under way on it."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.in_flight: dict[int, InFlight] = {}
        self.in_flight_bytes = 0

    @property
    def chunk_bytes(self) -> int:
        """How large the next chunk may be; follows the speed of the link."""
        return self.session.chunk_bytes

    @property
    def patience_s(self) -> float:
        """How long to wait for an answer before something is wrong, in seconds."""
        return self.session.channel.traits.silence_s

    def has_room(self) -> bool:
        """Say whether the window lets one more chunk go."""
        if not self.in_flight:
            return True
        window_bytes = self.session.channel.traits.window_bytes
        return self.in_flight_bytes + self.chunk_bytes <= window_bytes

    def note(self, request_id: int, flight: InFlight) -> None:
        """Take a chunk as under way."""
        self.in_flight[request_id] = flight
        self.in_flight_bytes += flight.size

    def forget(self, request_id: int) -> InFlight:
        """Take a chunk as no longer under way."""
        flight = self.in_flight.pop(request_id)
        self.in_flight_bytes -= flight.size
        flight.upload.flying -= 1
        return flight
