"""How both ends of a line find the fastest speed that holds. No I/O, no clock of its own.

The host asks for a speed, the agent agrees, both switch, and at the new speed a pattern goes
both ways. Only when all of it arrives does the host speak on at that speed, which is how the
agent learns that it holds. Whoever hears nothing goes back to the base speed by himself, so
both always meet there again.
"""

from __future__ import annotations

import struct
from typing import List, Optional, Sequence, Set

from edgesdk.wire.arq_send import BITS_PER_BYTE

__all__ = [
    "RATES",
    "RATE_KINDS",
    "AgentRate",
    "HostRate",
    "mask_of_rates",
    "rates_of_mask",
]

#: Speeds that may be tried, in bits a second; the position is the bit in the opening frames.
RATES = (
    230_400,
    460_800,
    500_000,
    576_000,
    921_600,
    1_000_000,
    1_152_000,
    1_500_000,
    2_000_000,
    2_500_000,
    3_000_000,
    3_500_000,
    4_000_000,
)
ASK, AGREE, REFUSE, TEST, REPORT = 0x90, 0x91, 0x92, 0x93, 0x94
RATE_KINDS = (ASK, AGREE, REFUSE, TEST, REPORT)
_ASK = struct.Struct(">BBI")
_ANSWER = struct.Struct(">BB")
_TEST = struct.Struct(">BBBB")
_PATTERN = bytes(range(256))
_TESTS = 16
_ROUNDS = 2
_TEST_WIRE_BYTES = 270
_MAX_TRIES = 8
_ASK_AGAIN_S = 0.3
_ASKS = 5
#: The last answer at the old speed leaves a UART, or a USB adapter, within this.
_LEAVE_S = 0.03
_SWITCH_S = 0.08
_SETTLE_S = 0.02
_ANSWER_S = 0.3
_TRIAL_S = 0.5
_DRAIN_S = 3.0
#: A speed at which nothing was heard for so long is given up.
SILENCE_S = 3.0


def rates_of_mask(mask: int) -> List[int]:
    """Give the speeds whose bits are set, slowest first."""
    return [rate for bit, rate in enumerate(RATES) if mask >> bit & 1]


def mask_of_rates(rates: Sequence[int]) -> int:
    """Give the bits of those speeds that are in `RATES`."""
    return sum(1 << bit for bit, rate in enumerate(RATES) if rate in rates)


def _pattern(index: int) -> bytes:
    turn = index * 37 % 256
    return _PATTERN[turn:] + _PATTERN[:turn]


def _tests(number: int, turn: int) -> List[bytes]:
    return [_TEST.pack(TEST, number, turn, i) + _pattern(i) for i in range(_TESTS)]


def _trial_s(rate: int) -> float:
    """How long an agent stays at a new speed after the last sign of the host."""
    return _TRIAL_S + 2.5 * _TESTS * _TEST_WIRE_BYTES * BITS_PER_BYTE / rate


def _test_index(body: bytes, number: int, turn: int) -> Optional[int]:
    if len(body) != _TEST.size + len(_PATTERN) or body[1] != number or body[2] != turn:
        return None
    index = body[3]
    return index if index < _TESTS and body[_TEST.size :] == _pattern(index) else None


class HostRate:
    """The host's side: it asks, tries and decides.

    Attributes:
        baud: The speed that the port should have now.
        paused: Nothing but the frames of this module may be sent.
    """

    def __init__(self, base: int, current: int) -> None:
        self._base = base
        self.baud = current
        self.paused = False
        self._state = "rest"
        self._candidates: List[int] = []  # rising; those up to _holds hold, none from _fails on
        self._holds, self._fails = -1, 0
        self._tested_by = 0.0
        self._number = 0
        self._rate = base
        self._tries = 0
        self._asks = 0
        self._turn = 0
        self._at = 0.0
        self._until = 0.0
        self._seen: Set[int] = set()
        self._out: List[bytes] = []

    @property
    def at_rest(self) -> bool:
        """Say that nothing is being tried."""
        return self._state == "rest"

    @property
    def is_draining(self) -> bool:
        """Say that it waits until nothing is under way."""
        return self._state == "drain"

    @property
    def is_trying(self) -> bool:
        """Say that the ends may not agree on the speed just now."""
        return self._state in ("switch", "test", "back")

    def start(self, candidates: Sequence[int], now: float) -> None:
        """Look for the fastest of these speeds: the very fastest first, then by halves."""
        self._candidates = sorted(candidates)
        self._holds, self._fails = -1, len(self._candidates)
        self._tries = 0
        self._next(now)

    def leave(self, now: float) -> None:
        """Ask the agent to go back to the base speed, since this one no longer holds."""
        self._candidates = []
        self._holds, self._fails = -1, 0
        self._ask_for(self._base, now)

    def _next(self, now: float) -> None:
        """Ask for the next speed to try, or for the best one that holds; then rest."""
        best = self._base if self._holds < 0 else self._candidates[self._holds]
        if self._fails - self._holds > 1 and self._tries < _MAX_TRIES:
            middle = (self._holds + self._fails) // 2
            self._ask_for(self._candidates[middle if self._tries else self._fails - 1], now)
        elif best not in (self.baud, self._base) and self._tries < 2 * _MAX_TRIES:
            self._ask_for(best, now)
        else:
            self._rest()

    def _ask_for(self, rate: int, now: float) -> None:
        self._rate = rate
        self._tries += 1
        self._number = (self._number + 1) % 256
        self._asks = 0
        self._state, self._at, self._until = "drain", now, now + _DRAIN_S

    def _judged(self, now: float, *, holds: bool) -> None:
        """Note what came of the last try, and go on."""
        if self._rate not in self._candidates:  # an agent that refuses the base speed
            self._rest()
            return
        index = self._candidates.index(self._rate)
        if holds:
            self._holds = index
        else:
            self._fails = min(self._fails, index)
            self._holds = min(self._holds, index - 1)
        self.paused = False
        self._next(now)

    def _rest(self) -> None:
        self._state, self.paused = "rest", False
        self._out = []

    def fall_back(self) -> None:
        """Go to the base speed and stay there: nothing is heard at this one."""
        self._rest()
        self.baud = self._base

    def tick(self, now: float, *, is_quiet: bool) -> None:
        """Let time pass; ``is_quiet`` says that no data is under way."""
        if self._state == "drain":
            if is_quiet:
                self._state, self._at, self.paused = "ask", now, True
            elif now >= self._until:
                self._rest()
        elif self._state == "switch" and now >= self._at:
            self.baud = self._rate
            if self._rate == self._base:
                self._rest()
                return
            self._state, self._turn = "test", 0
            self._begin_turn(now + _SETTLE_S)
        elif self._state == "test" and now >= self._until:
            self._turn += 1
            if self._turn < _ROUNDS and self._seen:
                self._begin_turn(now)
                return
            self.baud = self._base
            # the agent goes back that long after the last of the pattern
            self._at = max(now, self._tested_by + _trial_s(self._rate)) + 2 * _SETTLE_S
            self._state = "back"
        elif self._state == "back" and now >= self._at:
            self._judged(now, holds=False)
        if self._state == "ask" and now >= self._at:
            if self._asks >= _ASKS:
                self._rest()
                return
            self._asks += 1
            self._at = now + _ASK_AGAIN_S
            self._out.append(_ASK.pack(ASK, self._number, self._rate))

    def _begin_turn(self, at: float) -> None:
        self._seen = set()
        self._at = at
        test_s = _TESTS * _TEST_WIRE_BYTES * BITS_PER_BYTE / self._rate
        self._tested_by = at + test_s
        self._until = at + _ANSWER_S + 2.5 * test_s
        self._out = _tests(self._number, self._turn)

    def take(self, now: float) -> List[bytes]:
        """Give the bodies to send now."""
        if self._state == "test" and now < self._at:
            return []
        out, self._out = self._out, []
        return out

    def wake_at(self) -> Optional[float]:
        """When `tick` or `take` has something to do."""
        if self._state == "rest":
            return None
        if self._state == "test":
            return self._at if self._out else self._until
        return self._until if self._state == "drain" else self._at

    def heard(self, body: bytes, now: float) -> bool:
        """Take a frame of the agent; True when a speed was just found to hold."""
        kind = body[0]
        if self._state == "ask" and len(body) == _ANSWER.size and body[1] == self._number:
            if kind == AGREE:
                self._state, self._at = "switch", now + _SWITCH_S
            elif kind == REFUSE:
                self._judged(now, holds=False)
        elif self._state == "test" and kind == TEST:
            index = _test_index(body, self._number, self._turn)
            if index is not None:
                self._seen.add(index)
        elif self._state == "test" and body[:3] == bytes([REPORT, self._number, self._turn]):
            self._until = now  # it missed some: the next turn, or a slower speed
            self._seen.add(-1)
        if self._state == "test" and len(self._seen) == _TESTS and -1 not in self._seen:
            # the pattern comes back only when all of it had arrived
            self._judged(now, holds=True)
            return True
        return False


class AgentRate:
    """The agent's side: it agrees, switches, and goes back unless the host speaks on.

    Attributes:
        baud: The speed that the port should have now.
        paused: Nothing but the frames of this module may be sent.
    """

    def __init__(self, base: int, current: int, rates: Sequence[int]) -> None:
        self._base = base
        self.baud = current
        self._rates = list(rates)
        self.paused = False
        self._state = "rest"
        self._number = -1
        self._turn = 0
        self._rate = base
        self._at = 0.0
        self._seen: Set[int] = set()
        self._report_at: Optional[float] = None
        self._out: List[bytes] = []

    @property
    def is_trying(self) -> bool:
        """Say that the ends may not agree on the speed just now."""
        return self._state != "rest"

    def fall_back(self) -> None:
        """Go to the base speed: nothing is heard at this one."""
        self._rest()
        self.baud = self._base

    def _rest(self) -> None:
        self._state, self.paused = "rest", False
        self._out, self._report_at = [], None

    def tick(self, now: float, *, line_free_at: float) -> None:
        """Let time pass; ``line_free_at`` is when all that was sent will be out."""
        if self._state == "agreed" and not self._out:
            self._state, self._at = "leave", max(now, line_free_at) + _LEAVE_S
        if self._state == "leave" and now >= self._at:
            self.baud = self._rate
            if self._rate == self._base:
                self._rest()
                return
            self._state, self._at = "trial", now + _trial_s(self._rate)
        elif self._state == "trial" and now >= self._at:
            self.fall_back()
        if self._report_at is not None and now >= self._report_at:
            self._report_at = None
            report = _TEST.pack(REPORT, self._number, self._turn, len(self._seen))
            complete = len(self._seen) == _TESTS
            self._out = _tests(self._number, self._turn) if complete else [report]

    def take(self, now: float) -> List[bytes]:  # noqa: ARG002 - as `HostRate` has it
        """Give the bodies to send now."""
        out, self._out = self._out, []
        return out

    def wake_at(self) -> Optional[float]:
        """When `tick` has something to do."""
        if self._state in ("rest", "agreed"):
            return None
        return self._at if self._report_at is None else min(self._at, self._report_at)

    def heard(self, body: bytes, now: float) -> bool:
        """Take a frame of the host; never decides that a speed holds."""
        if body[0] == ASK and len(body) == _ASK.size:
            _, number, rate = _ASK.unpack(body)
            if rate != self._base and rate not in self._rates:
                self._out.append(_ANSWER.pack(REFUSE, number))
            elif self._state in ("rest", "agreed") or (
                self._state == "trial" and number != self._number
            ):
                self._number, self._rate, self._turn = number, rate, 0
                self._seen, self._report_at = set(), None
                self._out = [_ANSWER.pack(AGREE, number)]
                self._state, self.paused = "agreed", True
        elif body[0] == TEST and self._state == "trial":
            if len(body) > 2 and body[2] != self._turn:
                self._turn, self._seen = body[2], set()
            index = _test_index(body, self._number, self._turn)
            if index is None:
                return False
            self._seen.add(index)
            self._at = now + _trial_s(self._rate)
            last = len(self._seen) == _TESTS or index == _TESTS - 1
            self._report_at = now if last else now + 0.05
        return False

    def spoken_to(self) -> None:
        """Note any other frame of the session: at a new speed it means that it holds."""
        if self._state == "trial":
            self._rest()
