"""What a deployment leaves behind: the receipt, and the outcome of the check on the device."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from edgesdk.errors import ReportError

__all__ = [
    "Deployment",
    "FinishedPart",
    "OutputCheck",
    "Probation",
    "PushResult",
    "Returned",
    "RuntimeUsed",
    "SelfCheck",
    "SentDelta",
    "VectorCheck",
]


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
class FinishedPart:
    """What came of a part that is finished on the device.

    Attributes:
        part: Its index.
        backend: The backend it is for.
        outcome: ``built``, ``cached`` (an engine of an earlier deployment), ``failed``, or
            ``unknown``: an agent too old to tell.
        fingerprint: The engine's, which covers model, options, GPU, driver and versions.
        seconds: How long it took on the device.
        builder: What built the engine, with its version.
        instead_of: Why an engine that was there was not used.
        why: Why it could not be finished; empty where it was.
        served_by: The backend that ran it in the self-check; another than ``backend`` where a
            fallback did, and None where nothing says.
    """

    part: int
    backend: str
    outcome: str
    fingerprint: str | None = None
    seconds: float | None = None
    builder: str | None = None
    instead_of: str = ""
    why: str = ""
    served_by: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RuntimeUsed:
    """The runtime that ran part number ``part`` on the device.

    ``backend`` is the one that did, a fallback's where ``detail`` says ``fell_back``; None from
    an older agent.
    """

    part: int
    runtime: str
    version: str | None
    detail: Mapping[str, Any]
    backend: str | None = None


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
class SentDelta:
    """A blob that the device made out of what it held, and what that took.

    Attributes:
        blob: Its SHA-256.
        bytes: Its size.
        sent_bytes: The delta's size.
        index_bytes: What the device sent of its blocks, where this computer lacked the base.
        against: The releases on the device, as bundle ids, whose blobs it was made from.
        seconds: What all of it took, finding the delta included.
    """

    blob: str
    bytes: int
    sent_bytes: int
    index_bytes: int
    against: tuple[str, ...]
    seconds: float

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Self:
        """Read back a record of a receipt.

        Raises:
            KeyError, TypeError: The record is not one.
        """
        return cls(**{**record, "against": tuple(record["against"])})


@dataclass(frozen=True, slots=True, kw_only=True)
class PushResult:
    """What went over the link, in blobs and raw bytes; skipped bytes were there already.

    Of a blob that was made from a delta, the delta was sent and the rest skipped.
    """

    blobs_sent: int
    bytes_sent: int
    bytes_skipped: int
    deltas: tuple[SentDelta, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Probation:
    """The probation of a device's current release.

    Attributes:
        bundle: The release.
        return_to: What is current again should it fail.
        served_s: How long it has served, in seconds; only time under a daemon's eyes counts.
        wanted_s: How long it has to.
        failures: How often it failed; at ``max_failures`` the device returns.
        max_failures: So many failures end it.
        last_failure: What the last one was.
        watched: Whether a daemon watches. Without one only uses by hosts are counted.
    """

    bundle: str
    return_to: str
    served_s: float
    wanted_s: float
    failures: int
    max_failures: int
    last_failure: str
    watched: bool

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Self:
        """Read back what ``dataclasses.asdict`` gave.

        Raises:
            TypeError: The record is not one.
        """
        return cls(**record)


@dataclass(frozen=True, slots=True, kw_only=True)
class Returned:
    """A release that was taken back: ``by`` the ``device`` itself, or a ``host`` that asked."""

    bundle: str
    to: str
    why: str
    by: str
    since: str


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
        deltas: Blobs that were not sent, but made on the device out of what it held.
        noise_bytes: Bytes from the device that were no frames; a bad cable shows here.
        slot: Where the release is now.
        previous: The bundle a rollback would give, or None.
        self_check: The outcome of the check vectors.
        finished: Parts that had to be finished on the device, with what came of each.
        signer: Whose signature of the bundle the device found good, or None.
        outcome: ``active``; ``on-probation`` while the device may still return by itself; or
            ``returned``, where it did before this receipt was written.
        probation: How the probation stood when the receipt was written, or None.
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
    finished: tuple[FinishedPart, ...] = ()
    signer: str | None = None
    outcome: str = "active"
    probation: Probation | None = None
    notes: tuple[str, ...] = ()
    deltas: tuple[SentDelta, ...] = ()

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
            probation = record.get("probation")
            kept = {key: value for key, value in record.items() if key != "finished_parts"}
            return cls(
                **{
                    **kept,
                    "target_mismatch": tuple(record["target_mismatch"]),
                    "finished": tuple(
                        FinishedPart(**each) for each in record.get("finished", ())
                    ),
                    "notes": tuple(record.get("notes", ())),
                    "deltas": tuple(
                        SentDelta.from_json(each) for each in record.get("deltas", ())
                    ),
                    "probation": probation and Probation.from_json(probation),
                    "self_check": SelfCheck.from_json(record["self_check"]),
                }
            )
        except (KeyError, TypeError) as exc:
            raise ReportError(f"cannot read deployment receipt: {exc}") from exc
