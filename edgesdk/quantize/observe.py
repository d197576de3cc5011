"""Run calibration samples through the float graph once, and remember what is needed of it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from edgesdk.errors import CalibrationError, QuantizeError
from edgesdk.progress import OnProgress, Progress, ignore_progress
from edgesdk.quantize.host import HostSession, give_memory_back
from edgesdk.quantize.observers import TensorStats
from edgesdk.quantize.state import State

if TYPE_CHECKING:
    import numpy as np
    import onnx_ir

__all__ = ["Kept", "Observed", "Watch", "observe", "same_for_batches"]

Sample = dict[str, "np.ndarray"]

#: Samples that are kept, with the float model's answers, to compare candidates on.
_KEPT_SAMPLES = 12
_KEPT_BYTES = 6 << 20
#: Samples run together while what they give stays below this.
_BATCH_BYTES = 4 << 20
_MOST_IN_BATCH = 32
#: Samples after which freed memory goes back to the system: the heap splits up between what
#: stays and the large arrays that come and go, and would grow with the number of samples.
_TRIM_EVERY = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Watch:
    """What to remember of one tensor: the axis of its channels, and whether to follow each."""

    axis: int | None = None
    by_channel: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """A sample with what the float graph answers."""

    inputs: Sample
    answers: Sample


@dataclass(slots=True, kw_only=True)
class Observed:
    """What one pass over the samples left behind."""

    #: Of the samples that were not kept; so what is kept tells how new data will do.
    stats: dict[str, TensorStats]
    #: Of those that were.
    held: dict[str, TensorStats]
    kept: list[Kept] = field(default_factory=list)
    samples: int = 0
    alike: bool = True

    @property
    def whole(self) -> dict[str, TensorStats]:
        """Statistics of all samples, put together anew at every call."""
        if self.stats is self.held:
            return self.held
        return {name: one.merge(self.held[name]) for name, one in self.stats.items()}


def observe(
    model: onnx_ir.Model,
    watched: Mapping[str, Watch],
    samples: Iterable[Sample],
    *,
    total: int | None = None,
    state: State | None = None,
    on_progress: OnProgress = ignore_progress,
) -> Observed:
    """Run every sample once and follow the tensors in ``watched``.

    With a ``state`` a run that was stopped goes on behind the last sample it kept a note of.

    Memory does not depend on how many samples there are: statistics are bounded, and of the
    samples themselves some are kept, evenly spread over the stream.

    Raises:
        QuantizeError: No samples, or one that the model does not take or that holds NaN.
    """
    inputs = {value.name or "" for value in model.graph.inputs}
    inner = [name for name in watched if name not in inputs]
    session = HostSession(_with_outputs(model, inner))
    give_memory_back()
    answers = [value.name or "" for value in model.graph.outputs if _is_tensor(value)]
    open_stats, held_stats = (
        {
            name: TensorStats(axis=watch.axis, by_channel=watch.by_channel)
            for name, watch in watched.items()
        }
        for _ in range(2)
    )
    found = Observed(stats=open_stats, held=held_stats)
    keeper = _Keeper(total)
    names = list(dict.fromkeys((*inner, *answers)))
    note = _Note(state, open_stats, held_stats)
    feed = _Feed(model, session, names, keeper, skip=note.read())
    for batch, group, held in feed.batches(samples):
        results = session.run(batch, names)
        feed.see(sum(array.nbytes for array in results.values()))
        if feed.is_new:
            for name, one in (held_stats if held else open_stats).items():
                array = results[name] if name in results else batch[name]
                one.update(array, together=len(group))
        if held:
            keeper.keep(batch, {name: results[name] for name in answers})
        del results  # or the next run's would lie beside them
        if feed.is_new and not feed.pending:
            note.write(feed.count)
        if not feed.count % _TRIM_EVERY:
            give_memory_back()
        on_progress(Progress(step="calibrate", done=feed.count, total=total, unit="samples"))
    found.samples, found.alike = feed.count, feed.alike
    if not found.samples:
        raise CalibrationError(
            "cannot calibrate: there are no samples",
            hint="give some 100 typical inputs with --calib",
        )
    if total != found.samples:
        done = found.samples
        on_progress(Progress(step="calibrate", done=done, total=done, unit="samples"))
    found.kept = keeper.kept
    if all(not one.seen for one in open_stats.values()):
        found.stats = held_stats
    return found


def same_for_batches(model: onnx_ir.Model) -> bool:
    """Say whether inputs and outputs all have a first extent that is left open, by one name."""
    ends = [*model.graph.inputs, *model.graph.outputs]
    firsts = set()
    for value in ends:
        if value.shape is None or not len(value.shape):
            return False
        extent = value.shape[0]
        firsts.add(extent if isinstance(extent, int) else (extent.value or None))
    return len(firsts) == 1 and not isinstance(next(iter(firsts)), int)


def _is_tensor(value: onnx_ir.Value) -> bool:
    """Leave out sequences and optionals: they are not compared."""
    import onnx_ir as ir

    return value.type is None or isinstance(value.type, ir.TensorType)


def _with_outputs(model: onnx_ir.Model, names: list[str]) -> onnx_ir.Model:
    """Give a copy that answers with the tensors called ``names`` too."""
    copy = model.clone()
    wanted = set(names) - {value.name for value in copy.graph.outputs}
    for node in copy.graph:
        for value in node.outputs:
            if value.name in wanted:
                copy.graph.outputs.append(value)
    return copy


class _Feed:
    """Joins samples where the graph gives for a batch what it gives one by one.

    Samples that are to be kept run alone and are marked. Of the first ``skip`` samples nothing
    else runs: their statistics are known.
    """

    def __init__(
        self,
        model: onnx_ir.Model,
        session: HostSession,
        names: list[str],
        keeper: _Keeper,
        *,
        skip: int,
    ) -> None:
        self._session, self._names, self._keeper, self._skip = session, names, keeper, skip
        self._size = None if same_for_batches(model) else 1
        self.pending: list[Sample] = []
        self.count = 0
        self.is_new = skip == 0
        self.alike = True

    def batches(self, samples: Iterable[Sample]) -> Iterator[tuple[Sample, list[Sample], bool]]:
        """Give inputs to run, the samples in them, and whether they are to be kept."""
        first: Sample | None = None
        for number, sample in enumerate(samples):
            _check_finite(sample, number)
            first = sample if first is None else first
            self.alike = self.alike and _same(first, sample)
            self.count = number + 1
            self.is_new = number >= self._skip
            if self._keeper.wants(number):
                yield sample, [sample], True
            elif self.is_new:
                yield from self._join(sample)
        yield from self._flush(alone=True)

    def see(self, answer_bytes: int) -> None:
        """Take note of how much a run gives: large answers are not joined, not even to try."""
        if self._size is None and 2 * answer_bytes > _BATCH_BYTES:
            self._size = 1

    def _join(self, sample: Sample) -> Iterator[tuple[Sample, list[Sample], bool]]:
        if self.pending and not _fits(self.pending[0], sample):
            yield from self._flush(alone=False)
        self.pending.append(sample)
        if self._size is None and len(self.pending) == 2:
            if _same(*self.pending):
                yield from self._flush(alone=True)  # they would not show what mixes samples
                return
            self._size = _batch_size(self._session, self._names, *self.pending)
        if self._size is not None and len(self.pending) >= self._size:
            yield from self._flush(alone=self._size == 1)

    def _flush(self, *, alone: bool) -> Iterator[tuple[Sample, list[Sample], bool]]:
        waiting, self.pending = self.pending, []
        if alone or len(waiting) < 2:
            for one in waiting:
                yield one, [one], False
        else:
            yield _joined(waiting), waiting, False


class _Note:
    """Keeps statistics on disk now and then, so that a stopped pass can go on."""

    def __init__(
        self,
        state: State | None,
        open_stats: dict[str, TensorStats],
        held_stats: dict[str, TensorStats],
    ) -> None:
        self._state = state or State(None)
        self._parts = {"open": open_stats, "held": held_stats}

    def read(self) -> int:
        """Take up what is there; give how many samples it covers."""
        arrays = self._state.read_arrays("ranges")
        found: dict[str, dict[str, TensorStats]] = {part: {} for part in self._parts}
        try:
            count = int(arrays["samples"])
            for part, stats in self._parts.items():
                for name, one in stats.items():
                    start = f"{part}:{name}:"
                    known = found[part][name] = one.copy()
                    known.from_arrays(
                        {
                            key[len(start) :]: array
                            for key, array in arrays.items()
                            if key.startswith(start)
                        }
                    )
        except (KeyError, ValueError, TypeError):
            return 0  # all of it or nothing, or samples would count twice
        for part, stats in self._parts.items():
            stats.update(found[part])
        return count

    def write(self, count: int) -> None:
        """Keep what is known after ``count`` samples, if it is time for that."""
        import numpy as np

        if not self._state.due():
            return
        arrays = {"samples": np.array(count)}
        for part, stats in self._parts.items():
            for name, one in stats.items():
                arrays |= {f"{part}:{name}:{key}": a for key, a in one.to_arrays().items()}
        self._state.write_arrays("ranges", arrays)


def _joined(group: list[Sample]) -> Sample:
    import numpy as np

    return {name: np.concatenate([one[name] for one in group]) for name in group[0]}


def _fits(one: Sample, other: Sample) -> bool:
    return one.keys() == other.keys() and all(
        one[name].shape == other[name].shape for name in one
    )


def _batch_size(session: HostSession, names: list[str], one: Sample, other: Sample) -> int:
    """Try two samples together; 1 where that gives something else than one after the other."""
    import numpy as np

    if not _fits(one, other) or any(a.ndim == 0 or a.shape[0] != 1 for a in one.values()):
        return 1
    try:
        both = session.run(_joined([one, other]), names)
        alone = session.run(other, names)
    except QuantizeError:
        return 1
    total = 0
    for name in names:
        wanted, got = alone[name], both[name]
        if wanted.ndim == 0 or wanted.shape[0] != 1 or got.shape != (2, *wanted.shape[1:]):
            return 1
        total += wanted.nbytes
        if wanted.dtype.kind == "f":
            reach = float(np.abs(wanted).max(initial=0.0))
            if not np.isfinite(reach) or not np.allclose(
                got[1:], wanted, rtol=1e-3, atol=1e-4 * reach + 1e-30
            ):
                return 1
        elif not np.array_equal(got[1:], wanted):
            return 1
    return max(1, min(_MOST_IN_BATCH, _BATCH_BYTES // max(total, 1)))


def _check_finite(sample: Sample, number: int) -> None:
    import numpy as np

    for name, array in sample.items():
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise CalibrationError(
                f"cannot calibrate with sample {number}: input {name!r} holds NaN or "
                "infinite values",
                hint="look at how the sample was made",
                sample=number,
            )


def _same(one: Sample, other: Sample) -> bool:
    import numpy as np

    return one is other or (
        one.keys() == other.keys()
        and all(np.array_equal(one[name], other[name]) for name in one)
    )


class _Keeper:
    """Keeps samples evenly spread over a stream of unknown length, within a bound of bytes.

    At most every fourth is kept; the others decide ranges.
    """

    def __init__(self, total: int | None) -> None:
        self._all: list[tuple[int, Kept]] = []
        self._every = 4 if total is None else max(4, -(-total // _KEPT_SAMPLES))
        self._most = _KEPT_SAMPLES
        self._number = 0

    def wants(self, number: int) -> bool:
        """Say whether the sample of that number is to be kept."""
        self._number = number
        if number % self._every:
            return False
        if len(self._all) >= self._most:
            self._every *= 2
            self._all = [each for each in self._all if each[0] % self._every == 0]
        return number % self._every == 0

    def keep(self, inputs: Sample, answers: Sample) -> None:
        """Keep the sample that was wanted last, with what the float graph answers."""
        if not self._all:
            size = sum(a.nbytes for a in (*inputs.values(), *answers.values()))
            self._most = max(2, min(_KEPT_SAMPLES, _KEPT_BYTES // max(size, 1)))
        both = [{name: one.copy() for name, one in kind.items()} for kind in (inputs, answers)]
        self._all.append((self._number, Kept(inputs=both[0], answers=both[1])))

    @property
    def kept(self) -> list[Kept]:
        """The samples that were kept, in the order of the stream."""
        return [each for _, each in self._all]
