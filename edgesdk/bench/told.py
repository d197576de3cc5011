"""Read what an agent answers to ``profile``: nothing it says is believed before it is checked.

Names of ops come from models and vendor libraries over an agent: they are cut, and what could
drive a terminal is taken out of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from edgesdk.bench.measurements import RuntimeRecord, read_runtimes
from edgesdk.devices.text import clean_text
from edgesdk.errors import ProtocolError
from edgesdk.wire.frames import Frame, load_json

__all__ = ["MAX_TOLD_OPS", "Told", "ToldOp", "ToldPart", "read_told"]

#: More than an agent's own limit; what is beyond makes no sense.
MAX_TOLD_OPS = 20_000
# Each list or object costs far more memory than its two characters.
_MAX_CONTAINERS = 100_000
_MAX_US = 1e12
_MAX_NAME = 300
_MAX_WORDS = 500
_MAX_COUNT = 1 << 40


@dataclass(frozen=True, slots=True, kw_only=True)
class ToldOp:
    """One op in the words of its runtime; times in microseconds of one inference."""

    op: str
    name: str
    where: str
    accelerator: bool | None
    us: float | None
    derived: bool
    precision: str | None
    count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ToldPart:
    """One part: its ops, how their times were taken, and the time of the whole call.

    ``total_us`` is that of the call alone, ``share`` what it takes of the chain's time.
    """

    index: int
    runtime: str
    ops: tuple[ToldOp, ...]
    how: str
    total_us: float | None
    share: float | None
    why: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """One answer. ``runtimes`` say which backend really served each part."""

    chain_us: float | None
    parts: tuple[ToldPart, ...]
    runtimes: tuple[RuntimeRecord, ...]


def read_told(frame: Frame, *, parts: int, device: str) -> Told:
    """Check the reply to a ``profile`` request.

    Args:
        frame: The reply.
        parts: How many the bundle has; the answer has to tell of each, in order.
        device: How messages call the device.

    Raises:
        ProtocolError: It is no such answer.
    """
    body = frame.body
    if body.count(b"[") + body.count(b"{") > _MAX_CONTAINERS:
        raise _refuse(device, f"it holds more than {_MAX_CONTAINERS} lists and objects")
    try:
        document = load_json(body)
    except ValueError as exc:
        raise _refuse(device, f"it is not JSON: {exc}") from exc
    if not isinstance(document, dict) or not isinstance(document.get("parts"), list):
        raise _refuse(device, "it has no parts")
    told = tuple(_part(record, device) for record in document["parts"][: parts + 1])
    if [part.index for part in told] != list(range(parts)):
        raise _refuse(device, f"it tells of {len(told)} parts, not of {parts} in order")
    if sum(len(part.ops) for part in told) > MAX_TOLD_OPS:
        raise _refuse(device, f"it tells of more than {MAX_TOLD_OPS} ops")
    return Told(
        chain_us=_microseconds(document.get("chain_us"), "chain_us", device),
        parts=told,
        runtimes=tuple(read_runtimes(frame.meta.get("runtimes"))),
    )


def _part(value: object, device: str) -> ToldPart:
    record = _mapping(value, "a part", device)
    index, ops = record.get("index"), record.get("ops")
    if type(index) is not int or not isinstance(ops, list):
        raise _refuse(device, "a part has no index or no list of ops")
    why = record.get("why")
    return ToldPart(
        index=index,
        runtime=_text(record, "runtime", device),
        ops=tuple(_op(op, device) for op in ops[: MAX_TOLD_OPS + 1]),
        how=_text(record, "how", device, limit=_MAX_WORDS),
        total_us=_microseconds(record.get("total_us"), "total_us", device),
        share=_share(record.get("share"), device),
        why=None if why is None else _text(record, "why", device, limit=_MAX_WORDS),
    )


def _op(value: object, device: str) -> ToldOp:
    record = _mapping(value, "an op", device)
    accelerator, precision = record.get("accelerator"), record.get("precision")
    count, derived = record.get("count", 1), record.get("derived", False)
    if accelerator is not None and not isinstance(accelerator, bool):
        raise _refuse(device, f"accelerator is {_shown(accelerator)}")
    if type(count) is not int or not 1 <= count <= _MAX_COUNT:
        raise _refuse(device, f"count is {_shown(count)}")
    if not isinstance(derived, bool):
        raise _refuse(device, f"derived is {_shown(derived)}")
    return ToldOp(
        op=_text(record, "op", device),
        name=_text(record, "name", device),
        where=_text(record, "where", device),
        accelerator=accelerator,
        us=_microseconds(record.get("us"), "us", device),
        derived=derived,
        precision=None if precision is None else _text(record, "precision", device),
        count=count,
    )


def _text(record: Mapping[str, Any], name: str, device: str, *, limit: int = _MAX_NAME) -> str:
    value = record.get(name)
    if not isinstance(value, str):
        raise _refuse(device, f"{name} is {_shown(value)}")
    return clean_text(value, limit=limit).replace("\n", " ")


def _microseconds(value: object, name: str, device: str) -> float | None:
    if value is None:
        return None
    if (
        isinstance(value, bool)
        or not isinstance(value, int | float)
        or not 0 <= value <= _MAX_US
    ):
        raise _refuse(device, f"{name} is {_shown(value)}")
    return float(value)


def _share(value: object, device: str) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        raise _refuse(device, f"share is {_shown(value)}")
    return float(value)


def _mapping(value: object, what: str, device: str) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise _refuse(device, f"{what} is {_shown(value)}")
    return value


def _shown(value: object) -> str:
    return ascii(value)[:80]


def _refuse(device: str, seen: str) -> ProtocolError:
    return ProtocolError(
        f"cannot read what ran where on {device}: {seen}",
        hint="replace the agent there with `edgesdk agent install` and measure again",
        device=device,
    )
