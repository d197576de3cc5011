"""What a deployment leaves behind: the receipt, and the outcome of the check on the device."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from edgesdk.errors import ReportError

__all__ = ["Deployment", "OutputCheck", "PushResult", "RuntimeUsed", "SelfCheck", "VectorCheck"]


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputCheck:
    """One output of one check vector, compared on the device and again here.

    The device compares with what the same part gave on the host (``within`` says whether every
    element stayed inside its ``allowed`` difference); the ``reference_`` figures compare with
    the float model and are None where its values were not at hand. ``why`` is set where the
    output was not comparable at all: missing, or of another shape.
    """

    name: str
    within: bool
    max_abs_error: float | None
    allowed: float | None
    mismatches: int
    elements: int
    cosine: float | None
    why: str = ""
    reference_cosine: float | None = None
    reference_max_abs_error: float | None = None
    reference_top1_agrees: bool | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class VectorCheck:
    """All outputs of the check vector ``index``."""

    index: int
    outputs: tuple[OutputCheck, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class RuntimeUsed:
    """The runtime that ran part number ``part`` on the device."""

    part: int
    runtime: str
    version: str | None
    detail: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class SelfCheck:
    """What the check vectors gave on the device; ``reused``: in an earlier deployment."""

    passed: bool
    reused: bool
    vectors: tuple[VectorCheck, ...]
    runtimes: tuple[RuntimeUsed, ...]
    load_ms: float | None
    cold_start_ms: float | None

    def to_json(self) -> dict[str, Any]:
        """Give the check as JSON values."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Self:
        """Read back what `to_json` gave.

        Raises:
            KeyError, TypeError: The record is not one.
        """
        vectors = tuple(
            VectorCheck(
                index=vector["index"],
                outputs=tuple(OutputCheck(**output) for output in vector["outputs"]),
            )
            for vector in record["vectors"]
        )
        runtimes = tuple(RuntimeUsed(**used) for used in record["runtimes"])
        return cls(**{**record, "vectors": vectors, "runtimes": runtimes})


@dataclass(frozen=True, slots=True, kw_only=True)
class PushResult:
    """What went over the link, in blobs and raw bytes; skipped bytes were there already."""

    blobs_sent: int
    bytes_sent: int
    bytes_skipped: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Deployment:
    """The receipt of one deployment.

    Attributes:
        bundle_id: What was deployed.
        device: The device's name.
        device_url: How it was reached; URLs hold no secrets.
        path: The scheme of that URL: ``local``, ``ssh`` or ``serial``.
        target: The profile the device was held against, or None.
        target_mismatch: Why it is not that target, where ``force_target`` overrode it.
        started: When it began, ISO 8601 in UTC.
        seconds: How long it took.
        blobs_sent: Blobs of which at least one byte went over the link.
        bytes_sent: Their bytes, before any compression on the link.
        bytes_skipped: Bytes of the bundle that the device had already.
        noise_bytes: Bytes from the device that were no frames; a bad cable shows here.
        slot: Where the release is now.
        previous: The bundle a rollback would give, or None.
        self_check: The outcome of the check vectors.
        finished_parts: Parts that were finished on the device, by index.
        notes: What a person should know although it worked, such as an agent of another age.
    """

    bundle_id: str
    device: str
    device_url: str
    agent_version: str
    agent_sha256: str
    path: str
    target: str | None
    target_mismatch: tuple[str, ...]
    started: str
    seconds: float
    blobs_sent: int
    bytes_sent: int
    bytes_skipped: int
    noise_bytes: int
    slot: str
    previous: str | None
    self_check: SelfCheck
    finished_parts: tuple[int, ...] = ()
    notes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Give the receipt as JSON values."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Self:
        """Read back what `to_json` gave.

        Raises:
            ReportError: The record is not a receipt.
        """
        try:
            return cls(
                **{
                    **record,
                    "target_mismatch": tuple(record["target_mismatch"]),
                    "finished_parts": tuple(record["finished_parts"]),
                    "notes": tuple(record.get("notes", ())),
                    "self_check": SelfCheck.from_json(record["self_check"]),
                }
            )
        except (KeyError, TypeError) as exc:
            raise ReportError(f"cannot read deployment receipt: {exc}") from exc
