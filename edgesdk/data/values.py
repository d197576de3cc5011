"""Small values that the readers of calibration and labelled data hand on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

__all__ = ["DataFinding", "InputRange"]


@dataclass(frozen=True, slots=True, kw_only=True)
class DataFinding:
    """Something about the data that is allowed and probably not what was meant.

    Attributes:
        code: Lower case with hyphens, stable, e.g. ``"raw-pixels"``.
        severity: ``"info"``, ``"warning"`` or ``"error"``.
        message: What was seen and what was expected.
        hint: The next thing to try; empty if there is nothing to do.
        subject: The input, array or file it is about.
    """

    code: str
    severity: Literal["info", "warning", "error"]
    message: str
    hint: str = ""
    subject: str = ""

    def to_json(self) -> dict[str, Any]:
        """Give the finding as plain data."""
        return {
            "code": self.code,
            "severity": self.severity,
            "message": self.message,
            "hint": self.hint,
            "subject": self.subject,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class InputRange:
    """What the values of one input looked like over the samples that were measured.

    Attributes:
        low: Smallest finite value.
        high: Largest finite value.
        mean: Mean of the finite values.
        whole: True where every value is a whole number.
        infinite: How many values are infinite.
        samples: Over how many samples this was measured.
    """

    low: float
    high: float
    mean: float
    whole: bool
    infinite: int
    samples: int

    def to_json(self) -> dict[str, Any]:
        """Give the range as plain data."""
        return {
            "low": self.low,
            "high": self.high,
            "mean": self.mean,
            "whole": self.whole,
            "infinite": self.infinite,
            "samples": self.samples,
        }

    @classmethod
    def from_json(cls, record: object) -> InputRange | None:
        """Read what `to_json` gave; None for anything else."""
        if not isinstance(record, Mapping):
            return None
        numbers = [record.get(key) for key in ("low", "high", "mean", "infinite", "samples")]
        if any(isinstance(each, bool) or not isinstance(each, int | float) for each in numbers):
            return None
        return cls(
            low=float(record["low"]),
            high=float(record["high"]),
            mean=float(record["mean"]),
            whole=record.get("whole") is True,
            infinite=int(record["infinite"]),
            samples=int(record["samples"]),
        )
