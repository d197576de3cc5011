"""Compare two releases on one device, in short blocks by turns, and say what they differ by.

The device alternates by itself (operation ``pair``), so no round trip lies between two blocks.
The workers are started several times within the time there is: see `edgesdk.bench.pairs` for
what that is good for and how the starts are put together.
"""

from __future__ import annotations

import random
import secrets
import struct
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, cast

from edgesdk.bench.compare_values import Comparison, PairedBlock, PairMode
from edgesdk.bench.measurements import (
    number_of,
    plain_detail,
    read_condition_samples,
    utc_of,
)
from edgesdk.bench.pairs import holm, paired_ratio
from edgesdk.bench.run import BenchSession
from edgesdk.bench.spec_values import threads_of
from edgesdk.bench.values import BenchSpec
from edgesdk.devices.text import clean_text, utf8_text
from edgesdk.errors import InputError, ProtocolError
from edgesdk.progress import OnProgress, Progress, ignore_progress
from edgesdk.wire.frames import Frame

__all__ = ["FEWEST_STARTS", "SECONDS", "Identified", "compare_bundles", "compare_with_several"]

#: How long a comparison takes where nobody says.
SECONDS = 10.0
#: Fewer say too little of what differs from process to process.
FEWEST_STARTS = 3
MOST_STARTS = 8
#: Starting both workers may take about so much of the time.
_START_SHARE = 0.5
#: Short, so that what comes and goes hits both; ten times what a turn costs.
BLOCK_MS = 6.0
_MOST_PAIRS = 4096
_START_TIMEOUT_S = 900.0
_MOST_SECONDS = 24 * 3600.0
_RECORD = struct.Struct("<5Q")
#: Nanoseconds or runs: more fit no report, and no device has that many.
_MOST = (1 << 63) - 1
_MOST_RATIO = 1e18
_OTHER_AGENT = "replace the agent there with `edgesdk agent install` and compare again"


class Identified(Protocol):
    """What has to be known of a bundle here, as the device holds it: its id."""

    @property
    def id(self) -> str:
        """The hash of its manifest."""


@dataclass(slots=True)
class _Taken:
    """What came back so far; lives for one comparison."""

    blocks: list[PairedBlock] = field(default_factory=list)
    starts: int = 0
    started: str | None = None
    why: str = ""
    throttled: list[bool] = field(default_factory=list)
    emulated: str | None = None
    #: The one processor that both were kept on, by the spec or by the agent.
    cpu: int | None = None
    #: What a start took besides its blocks, in seconds.
    overhead_s: float = 0.0


def compare_bundles(
    session: BenchSession,
    ours: Identified,
    theirs: Identified,
    *,
    spec: BenchSpec | None = None,
    seconds: float = SECONDS,
    seed: int | None = None,
    on_progress: OnProgress = ignore_progress,
) -> Comparison:
    """Measure two bundles that a device holds in turns; both must have passed their check.

    Args:
        session: The device.
        ours: The bundle that the ratio is of: above 1 it is the slower one.
        theirs: The bundle it is compared with; it may be the same one.
        spec: Threads, processors, and whether to sample conditions; ``seconds`` is how long.
            The blocks are a single stream without batches, whatever it says of those.
        seconds: What all of it may take, loading included. Both are loaded at least three
            times, so a device that loads slowly takes longer.
        seed: What the order is drawn with; one is drawn where it is None.
        on_progress: Told of pairs.

    Raises:
        InputError: ``seconds`` is no time.
        DeviceError: The device does not hold a bundle, or its worker failed.
        LinkError: The link broke, or the answer makes no sense.
    """
    if not 0.1 <= seconds <= _MOST_SECONDS:
        raise InputError(
            f"cannot compare for {seconds:g} s (expected 0.1 to {_MOST_SECONDS:g})",
            hint="10 s show a difference of a few per cent on a quiet device",
            seconds=seconds,
        )
    spec = spec or BenchSpec()
    seed = secrets.randbits(32) if seed is None else seed
    dice = random.Random(seed)  # noqa: S311 - an order, not a secret
    taken = _Taken()
    began = time.monotonic()
    wanted = FEWEST_STARTS
    while taken.starts < wanted:
        left_s = seconds - (time.monotonic() - began)
        slot_s = max(0.05, left_s / (wanted - taken.starts))
        _take(
            session,
            (ours, theirs),
            taken,
            spec=spec,
            slot_s=slot_s,
            dice=dice,
            on_progress=on_progress,
        )
        if taken.starts == 1:
            wanted = _how_many_starts(seconds, taken.overhead_s)
    spent_s = time.monotonic() - began
    return _compared(session, (ours, theirs), taken, seed=seed, seconds=spent_s)


def _how_many_starts(seconds: float, overhead_s: float) -> int:
    fit = int(_START_SHARE * seconds / max(overhead_s, 1e-3))
    return max(FEWEST_STARTS, min(MOST_STARTS, fit))


def compare_with_several(
    session: BenchSession,
    ours: Identified,
    others: Sequence[Identified],
    *,
    spec: BenchSpec | None = None,
    seconds: float = SECONDS,
    seed: int | None = None,
    on_progress: OnProgress = ignore_progress,
) -> tuple[Comparison, ...]:
    """Compare a bundle with each of several, ``seconds`` for each.

    With more than one, each comparison's ``adjusted_p`` is Holm's: that any of them shows a
    difference where there is none has a probability of at most 5 %.
    """
    seed = secrets.randbits(32) if seed is None else seed
    found = [
        compare_bundles(
            session,
            ours,
            other,
            spec=spec,
            seconds=seconds,
            seed=seed + number,
            on_progress=on_progress,
        )
        for number, other in enumerate(others)
    ]
    if len(found) < 2:
        return tuple(found)
    adjusted = holm([each.p_value for each in found])
    return tuple(replace(each, adjusted_p=p) for each, p in zip(found, adjusted, strict=True))


def _take(
    session: BenchSession,
    bundles: tuple[Identified, Identified],
    taken: _Taken,
    *,
    spec: BenchSpec,
    slot_s: float,
    dice: random.Random,
    on_progress: OnProgress,
) -> None:
    """Have the device start both workers and measure pairs for a while."""
    order = "".join(dice.choice("01") for _ in range(_MOST_PAIRS))
    asked = {
        "release": bundles[0].id,
        "against": bundles[1].id,
        "order": order,
        "block_ms": BLOCK_MS,
        "duration_s": slot_s,
        "threads": threads_of(spec),
        "cpus": None if spec.cpus is None else list(spec.cpus),
        "sample_conditions": spec.sample_conditions,
        "side_by_side": not taken.why,
    }
    done = len(taken.blocks)

    def tell(event: Mapping[str, Any]) -> None:
        number = event.get("done")
        if event.get("step") == "pairs" and type(number) is int and 0 <= number <= _MOST_PAIRS:
            step = f"compare, start {taken.starts + 1}"
            on_progress(Progress(step=step, done=done + number, total=None, unit="pairs"))

    reply = session.request("pair", asked, timeout_s=slot_s + _START_TIMEOUT_S, on_event=tell)
    _read(reply, order, taken, device=session.device_name)


def _read(frame: Frame, order: str, taken: _Taken, *, device: str) -> None:
    """Check the reply to ``pair`` and keep what it says.

    Raises:
        ProtocolError: A time is missing or impossible.
    """
    meta, body = frame.meta, frame.body
    pairs = meta.get("pairs")
    records = list(_RECORD.iter_unpack(body)) if len(body) % _RECORD.size == 0 else []
    bad = not records or pairs != len(records) or len(records) > len(order)
    # runs that no report can hold are as impossible as a time of 0
    if bad or any(0 in record[1:] or max(record) > _MOST for record in records):
        raise ProtocolError(
            f"cannot read the comparison from {device}: {len(body)} bytes for "
            f"{str(pairs)[:20]} pairs (expected {_RECORD.size} for each, all times above 0 "
            "and possible)",
            hint=_OTHER_AGENT,
            device=device,
        )
    for first, (at_ns, ours_ns, theirs_ns, our_runs, their_runs) in zip(
        order, records, strict=False
    ):
        taken.blocks.append(
            PairedBlock(
                start=taken.starts,
                t_s=at_ns / 1e9,
                ours_ms=ours_ns / 1e6,
                theirs_ms=theirs_ns / 1e6,
                runs=(our_runs, their_runs),
                ours_first=first == "0",
            )
        )
    taken.starts += 1
    why, wall_s = meta.get("why"), number_of(meta.get("wall_s"))
    taken.started = taken.started or utc_of(meta.get("started"))
    taken.why = taken.why or (clean_text(why[:300]) if isinstance(why, str) else "")
    if wall_s is not None:
        taken.overhead_s = max(0.0, wall_s - records[-1][0] / 1e9)
    conditions = meta.get("conditions")
    conditions = conditions if isinstance(conditions, Mapping) else {}
    cpus = meta.get("cpus")
    if isinstance(cpus, list) and len(cpus) == 1 and type(cpus[0]) is int:
        taken.cpu = cpus[0]
    emulated = plain_detail(conditions.get("static")).get("emulated")
    taken.emulated = taken.emulated or (None if emulated is None else str(emulated))
    taken.throttled += [
        bool(sample.throttled)
        for sample in read_condition_samples(conditions.get("samples"))
        if sample.throttled is not None
    ]


def _compared(
    session: BenchSession,
    bundles: tuple[Identified, Identified],
    taken: _Taken,
    *,
    seed: int,
    seconds: float,
) -> Comparison:
    starts = [
        [(b.ours_ms, b.theirs_ms) for b in taken.blocks if b.start == number]
        for number in range(taken.starts)
    ]
    found = paired_ratio(starts)
    if not 0.0 < found.lower <= found.upper <= _MOST_RATIO:
        raise ProtocolError(
            f"cannot read the comparison from {session.device_name}: by its times ours takes "
            f"{found.lower:.3g} to {found.upper:.3g} times as long, which no two releases do",
            hint=_OTHER_AGENT,
            device=session.device_name,
        )
    mode = "reloaded" if taken.why else "side-by-side"
    return Comparison(
        ours=bundles[0].id,
        theirs=bundles[1].id,
        device=utf8_text(session.device_name),
        started=taken.started,
        blocks=tuple(taken.blocks),
        starts=taken.starts,
        mode=cast("PairMode", mode),
        ratio=found.ratio,
        lower=found.lower,
        upper=found.upper,
        coverage=found.coverage,
        log_error=found.log_error,
        freedom=found.freedom,
        seed=seed,
        seconds=seconds,
        throttled=any(taken.throttled) if taken.throttled else None,
        emulated=taken.emulated,
        notes=tuple(_notes(taken, found.between)),
    )


def _notes(taken: _Taken, between: float) -> list[str]:
    notes = []
    if taken.why:
        notes.append(f"each block loaded its release anew: {taken.why}")
    if between > 0.02:
        notes.append(
            f"from start to start the ratio moves by {between:.1%} (standard deviation): what "
            "a process happens to get, such as its place in memory, matters as much"
        )
    if taken.cpu is not None:
        notes.append(f"both ran on processor {taken.cpu} alone")
    if any(taken.throttled):
        notes.append("the clock was limited while it was measured")
    if taken.emulated is not None:
        notes.append(f"the device is emulated ({taken.emulated}): a board may differ")
    return notes
