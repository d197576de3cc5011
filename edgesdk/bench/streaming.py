"""Samples through a release on a device, as fast as the link and the runtime let them.

Samples travel in packs, several under way at once, so that the device never waits for a round
trip. Where the link is slow they are compressed, and the device keeps them under their hash:
the same samples, for another release say, are not sent again.
"""

from __future__ import annotations

import hashlib
import time
import zlib
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from edgesdk.bench.measurements import number_of
from edgesdk.bench.outputs import Outputs
from edgesdk.deploy.squeeze import Squeeze
from edgesdk.devices.refusals import refusal_error
from edgesdk.errors import DataError, DeviceError, EdgeError, LinkError, ProtocolError
from edgesdk.progress import OnProgress, Progress, RateMeter, ignore_progress
from edgesdk.tensors import pack_tensors
from edgesdk.wire import codes
from edgesdk.wire.limits import MAX_BODY_BYTES, MAX_PACK_SAMPLES, MAX_TENSOR_BYTES

if TYPE_CHECKING:
    import numpy as np

    from edgesdk.data import Dataset
    from edgesdk.devices.session import Session

__all__ = ["Streamed", "stream_samples"]

_STEP = "evaluate on the device"
#: Samples read from a file at once.
_BLOCK_BYTES = 4 << 20
#: The answer to one pack should not be larger than that, unless one sample has more.
_ANSWER_BYTES = 2 << 20
#: A pack that is not to be kept should not take the device longer, so that progress shows and
#: little is lost with a link.
_PACK_S = 0.5
#: One that is to be kept is cut by its contents alone, so that it is cut alike every time.
_KEPT_SAMPLES = 1024
#: What an agent takes into its queue while it answers; beyond that both ends could wait for
#: the other to read.
_QUEUE_BYTES = 3 << 20
_ALWAYS_UNDER_WAY = 2
_MOST_UNDER_WAY = 64
#: Keep on the device what fits beside others there: half of what the agent keeps in all.
_KEEP_BYTES = 64 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Streamed:
    """What a pass over samples on a device gave.

    Attributes:
        outputs: Of the first ``samples`` samples.
        samples: How many samples were run.
        run_ms: Milliseconds in the runtime, over all samples.
        sent_bytes: What travelled to the device for them, compressed where that was.
        kept_samples: How many the device had already.
        stopped: What ended the pass early; None for a complete one.
    """

    outputs: Outputs
    samples: int
    run_ms: float
    sent_bytes: int
    kept_samples: int
    stopped: EdgeError | None = None


@dataclass(slots=True, kw_only=True)
class _Pack:
    first: int
    count: int
    specs: list[dict[str, Any]]
    body: bytes
    sha256: str
    wire_bytes: int = 0
    has_body: bool = True


@dataclass(slots=True, kw_only=True)
class _Cutter:
    """Cuts a data set into packs of samples with one shape."""

    blocks: Iterator[tuple[int, dict[str, np.ndarray]]]
    first: int = 0
    _held: tuple[int, dict[str, np.ndarray]] | None = None

    def sample_bytes(self) -> int:
        """Bytes of the next sample; 0 where there is none."""
        block = self._peek()
        return 0 if block is None else sum(a.nbytes for a in block[1].values()) // block[0]

    def _peek(self) -> tuple[int, dict[str, np.ndarray]] | None:
        if self._held is None:
            self._held = next(self.blocks, None)
        return self._held

    def take(self, most: int) -> _Pack | None:
        """Give the next samples, at most so many; None at the end."""
        block = self._peek()
        if block is None:
            return None
        pieces: list[dict[str, np.ndarray]] = []
        count = 0
        while block is not None and count < most and _alike(pieces, block[1]):
            number = min(block[0], most - count)
            pieces.append({name: array[:number] for name, array in block[1].items()})
            count += number
            left = block[0] - number
            rest = {name: array[number:] for name, array in block[1].items()}
            self._held = (left, rest) if left else None
            block = self._peek() if count < most else None
        specs, body = pack_tensors(_joined(pieces))
        pack = _Pack(first=self.first, count=count, specs=specs, body=body, sha256="")
        self.first += count
        return pack


def _alike(pieces: Sequence[Mapping[str, np.ndarray]], other: Mapping[str, np.ndarray]) -> bool:
    if not pieces:
        return True
    return all(pieces[0][name].shape[1:] == array.shape[1:] for name, array in other.items())


def _joined(pieces: Sequence[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    import numpy as np

    if len(pieces) == 1:
        return pieces[0]
    return {name: np.concatenate([piece[name] for piece in pieces]) for name in pieces[0]}


@dataclass(slots=True, kw_only=True)
class _Stream:
    """One pass: what waits, what is under way, what came back."""

    session: Session
    release: str
    dataset: Dataset
    outputs: Sequence[str] | None
    top: int
    timeout_s: float
    on_progress: OnProgress
    collected: Outputs
    keep: bool = False
    hopeful: bool = False
    cutter: _Cutter = field(init=False)
    squeeze: Squeeze = field(init=False)
    under_way: dict[int, _Pack] = field(default_factory=dict)
    again: deque[_Pack] = field(default_factory=deque)
    in_flight_bytes: int = 0
    answered: int = 0
    run_ms: float = 0.0
    sent_bytes: int = 0
    kept_samples: int = 0
    answer_bytes: int = 0
    is_far: bool = False
    is_slow: bool = False
    begun_s: float = field(default_factory=time.monotonic)
    meter: RateMeter = field(default_factory=RateMeter)

    def __post_init__(self) -> None:
        traits = self.session.channel.traits
        self.cutter = _Cutter(blocks=self.dataset.blocks(_BLOCK_BYTES))
        self.squeeze = Squeeze(always=traits.compress)
        self.is_slow = traits.compress
        total = self.cutter.sample_bytes() * (self.dataset.count or 0)
        self.is_far = traits.compress or traits.lane_bytes > 0
        self.keep = self.hopeful = self.is_far and 0 < total <= _KEEP_BYTES

    def run(self) -> None:
        """Send every sample and take every answer."""
        # alone: it loads the model, and tells how large the answers are
        self._post(self.cutter.take(1))
        while self.under_way:
            self._take_answer()
            while self._has_room():
                pack = self.again.popleft() if self.again else self.cutter.take(self._most())
                if pack is None:
                    break
                self._post(pack)

    def _most(self) -> int:
        """How many samples the next pack should have."""
        sample = self.cutter.sample_bytes()
        most = min(
            MAX_PACK_SAMPLES,
            self.session.chunk_bytes // max(1, sample),
            _ANSWER_BYTES // max(1, self.answer_bytes),
        )
        if self.keep:
            most = min(most, _KEPT_SAMPLES)
        elif self.answered and self.run_ms:
            # first the least of both: a device may say that it took next to nothing
            most = int(min(most, 1000 * _PACK_S * self.answered / self.run_ms))
        return max(1, most)

    def _has_room(self) -> bool:
        if len(self.under_way) < _ALWAYS_UNDER_WAY:
            return True
        window = min(self.session.channel.traits.window_bytes, _QUEUE_BYTES)
        return len(self.under_way) < _MOST_UNDER_WAY and self.in_flight_bytes < window

    def _post(self, pack: _Pack | None) -> None:
        if pack is None:
            return
        if len(pack.body) > MAX_TENSOR_BYTES:
            raise DataError(
                f"cannot evaluate on {self.session.device_name}: a sample has "
                f"{len(pack.body)} bytes (at most {MAX_TENSOR_BYTES})"
            )
        meta: dict[str, Any] = {
            "release": self.release,
            "samples": pack.count,
            "tensors": pack.specs,
            "timeout_s": self.timeout_s,
            "top": self.top,
            "squeeze": self.is_slow,
        }
        if self.outputs is not None:
            meta["outputs"] = list(self.outputs)
        body = b""
        if self.keep:
            meta["pack"] = pack.sha256 = pack.sha256 or hashlib.sha256(pack.body).hexdigest()
        pack.has_body = not self.hopeful
        if pack.has_body:
            packed = self._squeezed(pack.body)
            body = pack.body if packed is None else packed
            if packed is not None:
                meta["raw_bytes"] = len(pack.body)
        pack.wire_bytes = len(body)
        self.sent_bytes += len(body)
        number = self.session.post("evaluate", meta, body)
        if not self.under_way:
            self.session.start_waiting()
        self.under_way[number] = pack
        self.in_flight_bytes += pack.wire_bytes

    def _squeezed(self, body: bytes) -> bytes | None:
        """Give a body as zlib where that pays; None where it does not."""
        if not self.is_far:
            return None
        # what the runtime takes is not the link's fault
        link_s = time.monotonic() - self.begun_s - self.run_ms / 1000
        came_bytes = self.sent_bytes - self.in_flight_bytes
        rate = came_bytes / link_s if self.answered > 1 and link_s > 0 else None
        return self.squeeze.pack(body, rate)

    def _take_answer(self) -> None:
        """Take one answer; wait for it as long as the device shows that it lives."""
        session = self.session
        silence_s = session.channel.traits.silence_s
        while True:
            frame = session.next_reply(timeout_s=silence_s, on_event=self._tell)
            if frame is None:
                session.give_up_on_silence("evaluate")
                continue
            number = frame.meta.get("id")
            pack = self.under_way.pop(number, None) if type(number) is int else None
            if pack is not None:
                break
        self.in_flight_bytes -= pack.wire_bytes
        meta = frame.meta
        if meta.get("ok") is not True:
            if meta.get("code") == codes.NOT_FOUND and not pack.has_body:
                self.hopeful = False  # nor will it have those behind
                self.again.append(pack)
                return
            raise refusal_error("evaluate", meta, device_name=session.device_name)
        self._collect(pack, meta, frame.body)

    def _collect(self, pack: _Pack, meta: Mapping[str, Any], body: bytes) -> None:
        if meta.get("samples") != pack.count:
            raise ProtocolError(
                f"cannot evaluate on {self.session.device_name}: it answered for "
                f"{str(meta.get('samples'))[:50]} of {pack.count} samples"
            )
        body = _inflated(meta, body, self.session.device_name)
        self.collected.add_pack(
            pack.first, pack.count, meta.get("tensors"), body, device=self.session.device_name
        )
        self.run_ms += number_of(meta.get("run_ms")) or 0.0
        self.answered += pack.count
        self.answer_bytes = max(self.answer_bytes, len(body) // pack.count)
        self.kept_samples += 0 if pack.has_body else pack.count
        self._report(self.answered)

    def _tell(self, event: Mapping[str, Any]) -> None:
        """Show how far the pack is that the device works on."""
        done, number = event.get("done"), event.get("id")
        pack = self.under_way.get(number) if type(number) is int else None
        if event.get("event") == "progress" and pack is not None and type(done) is int:
            self._report(self.answered + min(max(0, done), pack.count))

    def _report(self, done: int) -> None:
        self.meter.note(done)
        self.on_progress(
            Progress(
                step=_STEP,
                done=done,
                total=self.dataset.count,
                unit="samples",
                rate_per_s=self.meter.per_s(),
            )
        )


def _inflated(meta: Mapping[str, Any], body: bytes, device: str) -> bytes:
    size = meta.get("raw_bytes")
    if size is None:
        return body
    if type(size) is int and 0 <= size <= MAX_BODY_BYTES:
        engine = zlib.decompressobj()
        try:
            raw = engine.decompress(body, size + 1)
        except zlib.error:
            raw = b""
        if len(raw) == size and engine.eof:
            return raw
    raise ProtocolError(f"cannot evaluate on {device}: its answer is damaged")


def stream_samples(
    session: Session,
    release: str,
    dataset: Dataset,
    *,
    outputs: Sequence[str] | None = None,
    top: int = 0,
    timeout_s: float = 60.0,
    partial: bool = False,
    on_progress: OnProgress = ignore_progress,
) -> Streamed:
    """Run every sample of a data set through a release on a device.

    Args:
        session: The device.
        release: A slot or a bundle id.
        dataset: Samples that fit the release.
        outputs: Names of the outputs that are wanted; all where it is None.
        top: Where above 0, and an output is a matrix of floats, only the places of that many
            largest values of a row come back, which is exact: whole numbers, -1 where a row
            holds a NaN.
        timeout_s: How long one inference may take.
        partial: Where a device goes away after it has answered for some samples, give those
            with ``stopped`` set, rather than to raise.
        on_progress: Told of samples, with the rate.

    Raises:
        DataError: There are no samples, they do not fit, or the outputs are too large to keep.
        DeviceError: The device failed.
        LinkError: The link broke.
    """
    collected = Outputs(batch=dataset.batch, spec=dataset.spec)
    stream = _Stream(
        session=session,
        release=release,
        dataset=dataset,
        outputs=outputs,
        top=top,
        timeout_s=timeout_s,
        on_progress=on_progress,
        collected=collected,
    )
    stopped: EdgeError | None = None
    try:
        stream.run()
    except (DeviceError, LinkError) as exc:
        if not partial or not collected.done:
            raise
        stopped = exc
    return Streamed(
        outputs=collected,
        samples=collected.done,
        run_ms=stream.run_ms,
        sent_bytes=stream.sent_bytes,
        kept_samples=stream.kept_samples,
        stopped=stopped,
    )
