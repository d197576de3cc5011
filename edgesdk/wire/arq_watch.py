"""When another speed of the line is worth a try."""

from __future__ import annotations

__all__ = ["SpeedWatch"]

#: A host looks for a faster speed once so much of the line is to be sent, or was used.
_WORTH_S = 0.5
_WORTH_BYTES = 24 << 10
_USED_S = 1.0
#: So many frames are watched for a speed that no longer holds, and this share may be bad.
_WATCHED = 64
_BAD_SHARE = 0.3


class SpeedWatch:
    """Says when another speed is worth a try, from what is sent, lost and spoilt."""

    def __init__(self) -> None:
        self._seen = self._bad = self._sent = self._lost = 0

    def begin(self, *, sent: int, lost: int) -> None:
        """Count from here on; the arguments count frames that were sent, and lost, before."""
        self._seen = self._bad = 0
        self._sent, self._lost = sent, lost

    def heard(self, *, good: bool) -> None:
        """Note a frame that came, whole or not."""
        self._seen += 1
        self._bad += not good

    def is_worth(self, *, waiting_bytes: int, used_bytes: int, bytes_per_s: float) -> bool:
        """Say whether enough is to be sent, or was sent, for a faster speed to pay."""
        enough = min(_WORTH_BYTES, _WORTH_S * bytes_per_s)
        return waiting_bytes >= enough or used_bytes >= _USED_S * bytes_per_s

    def is_bad(self, *, sent: int, lost: int) -> bool:
        """Say that this speed no longer holds; forgets what is long past."""
        sent, lost = sent - self._sent, lost - self._lost
        if lost > _BAD_SHARE * max(_WATCHED, sent):
            return True
        if self._bad > _BAD_SHARE * max(_WATCHED, self._seen):
            return True
        if sent + self._seen > 4 * _WATCHED:
            self.begin(sent=sent + self._sent, lost=lost + self._lost)
        return False
