"""Further lanes for a push: when they pay, and opening them while the push goes on.

An SSH server lets 2 MiB be under way on one channel. Where a round trip takes so long that this
is less than the link holds, one channel stands still most of the time, and further connections
fill the gap. They cost logins, so they are opened only where measuring says that the first lane
is bound by its window and that enough is left to send.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable

from edgesdk.devices.session import Session
from edgesdk.errors import EdgeError
from edgesdk.progress import RateMeter
from edgesdk.transport.base import ManyLanes
from edgesdk.wire.limits import MAX_AHEAD_BYTES

__all__ = ["MAX_LANES", "LaneOffer", "Lanes", "ask_for_lanes"]

MAX_LANES = 4
#: Below this one lane carries more than this program can send.
_MIN_ROUND_TRIP_S = 0.008
_SURELY_FAR_S = 0.05
#: So much of the channel's window in every round trip means that the window is the limit: a
#: server grants more of it only when half is used up.
_FULL_SHARE = 0.5
#: A login takes about so many round trips, and so long in any case.
_LOGIN_ROUND_TRIPS = 12
_LOGIN_S = 0.4
#: What is left must take so many times longer than the login.
_WORTH_IT = 2.0
_LEAST_SPAN_S = 0.15
_SMALLEST_PUSH_BYTES = 8 << 20
_OPEN_TIMEOUT_S = 20.0
_ASK_TIMEOUT_S = 15.0


class LaneOffer:
    """What the agent said when it was asked for lanes.

    Attributes:
        token: Lets a lane in.
        ahead_bytes: How much the agent keeps of what comes before its turn.
        round_trip_s: How long the quickest answer of this session took.
    """

    def __init__(self, token: str, ahead_bytes: int, round_trip_s: float) -> None:
        self.token = token
        self.ahead_bytes = ahead_bytes
        self.round_trip_s = round_trip_s


def ask_for_lanes(session: Session, total_bytes: int) -> LaneOffer | None:
    """Ask the agent for lanes; None where there is no use for them, or it has none."""
    channel = session.channel
    if (
        not channel.traits.lane_bytes
        or not isinstance(channel, ManyLanes)
        or total_bytes < _SMALLEST_PUSH_BYTES
    ):
        return None
    try:
        frame = session.request("lanes", timeout_s=_ASK_TIMEOUT_S)
        if _MIN_ROUND_TRIP_S <= session.quickest_s < _SURELY_FAR_S:
            # a busy processor delays answers as well, and then lanes only make it busier
            session.request("lanes", timeout_s=_ASK_TIMEOUT_S)
    except EdgeError:  # it is older, or the link broke: then the push will say so
        return None
    round_trip_s = session.quickest_s
    token, ahead = frame.meta.get("token"), frame.meta.get("ahead_bytes")
    if not isinstance(token, str) or type(ahead) is not int or ahead <= 0:
        return None
    return LaneOffer(token, min(ahead, MAX_AHEAD_BYTES), round_trip_s)


class Lanes:
    """Opens lanes once that pays; each carries on a thread of its own.

    Args:
        session: The session of the push.
        offer: What its agent gave.
        carry: Sends chunks over a lane until there are no more, or the lane breaks.
    """

    def __init__(
        self, session: Session, offer: LaneOffer, carry: Callable[[Session], None]
    ) -> None:
        self._session = session
        self._offer = offer
        self._carry = carry
        self._lock = threading.Lock()
        self._sessions: list[Session] = []
        self._closed = False
        #: What the first lane carries now. Answers come in bursts, one in a round trip.
        self.meter = RateMeter(span_s=max(_LEAST_SPAN_S, 3 * offer.round_trip_s))
        #: Whether lanes were found to pay, and are there or on their way.
        self.opens = False

    def consider(self, *, sent_bytes: int, left_bytes: int) -> None:
        """Open lanes if they pay, at most once in a push; does not wait for them.

        Args:
            sent_bytes: What the first lane has carried so far.
            left_bytes: What has still to be sent.
        """
        if self.opens:
            return
        self.meter.note(sent_bytes)
        bytes_per_s = self.meter.per_s(at_least_s=_LEAST_SPAN_S)
        if not bytes_per_s or not self._pays(bytes_per_s, left_bytes):
            return
        self.opens = True
        for number in range(1, MAX_LANES):
            threading.Thread(target=self._open, name=f"lane {number}", daemon=True).start()

    def _pays(self, bytes_per_s: float, left_bytes: int) -> bool:
        round_trip_s = self._offer.round_trip_s
        if round_trip_s < _MIN_ROUND_TRIP_S:
            return False
        lane_bytes = self._session.channel.traits.lane_bytes
        is_full = bytes_per_s * round_trip_s >= _FULL_SHARE * lane_bytes
        login_s = _LOGIN_S + _LOGIN_ROUND_TRIPS * round_trip_s
        return is_full and left_bytes / bytes_per_s >= _WORTH_IT * login_s

    def _open(self) -> None:
        channel = self._session.channel
        assert isinstance(channel, ManyLanes)
        # a server may refuse (MaxSessions, MaxStartups, a second factor): then there are fewer
        with contextlib.suppress(EdgeError):
            lane = Session(
                channel.open_lane(timeout_s=_OPEN_TIMEOUT_S),
                device_name=self._session.device_name,
                timeout_s=_OPEN_TIMEOUT_S,
                lane=self._offer.token,
            )
            with lane:
                with self._lock:
                    if self._closed:
                        return
                    self._sessions.append(lane)
                self._carry(lane)

    def close(self) -> None:
        """End every lane; one that is being opened ends as soon as it is open."""
        with self._lock:
            self._closed = True
            sessions = list(self._sessions)
        for lane in sessions:
            lane.close()
