"""What layers see of calibration data: second moments and means of their input columns.

A linear layer computes ``Y = W X``, with one column of ``X`` per output position; a
convolution's column is the patch under its kernel, as im2col lays it out. The error of changed
weights ``Q`` over the data is ``tr((W - Q) H (W - Q)^T)`` with ``H = E[x x^T]``, so all that
rounding or pruning must know of the data is ``H`` and, for the bias, ``E[x]`` (Frantar and
Alistarh, Optimal Brain Compression, arXiv:2208.11580). Positions are subsampled with a fixed
stride; products of a few hundred columns are float32 and their sums float64. The same samples
give the same numbers.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sized
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgesdk.errors import CalibrationError
from edgesdk.progress import OnProgress, Progress, ignore_progress
from edgesdk.quantize._columns import Layer, layer_of, rows_to_weight, weight_rows
from edgesdk.quantize._taps import Sample, Tap

if TYPE_CHECKING:
    import numpy as np
    import onnx_ir as ir

__all__ = [
    "CollectedMoments",
    "Moments",
    "NoMoments",
    "collect_moments",
    "moments_by_pass",
    "rows_to_weight",
    "weight_rows",
    "why_no_moments",
]

#: Columns wait in float32 up to this size, so that one product serves many of them.
_BUFFER_BYTES = 1 << 20
#: Moments have settled with so many columns for each of a column's elements.
_COLUMNS_PER_ELEMENT = 16
#: Assumed where the number of samples is not known before they are read.
_USUAL_SAMPLES = 128
_CAP_BYTES = 256 << 20
_LARGEST_WIDTH = 2304


@dataclass(frozen=True, slots=True, kw_only=True)
class Moments:
    """The moments of one layer's input columns.

    Attributes:
        second: ``E[x x^T]``, float64 ``[groups, K, K]``. ``K`` counts a column: input channels
            per group times kernel positions for a Conv, in the order of its weight's axes; the
            weight's reduced axis for Gemm and MatMul, whose one group is there too.
        mean: ``E[x]``, float64 ``[groups, K]``.
        columns: How many columns were averaged in each group.
    """

    second: np.ndarray
    mean: np.ndarray
    columns: int

    @property
    def centred(self) -> np.ndarray:
        """``E[x x^T] - E[x] E[x]^T``: counts the error that no change of bias takes up."""
        less: np.ndarray = self.second - self.mean[:, :, None] * self.mean[:, None, :]
        return less


@dataclass(frozen=True, slots=True, kw_only=True)
class NoMoments:
    """A node without moments, and why."""

    name: str
    op: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CollectedMoments:
    """Moments by node name; nodes with equal input and window share one value."""

    moments: Mapping[str, Moments]
    left: tuple[NoMoments, ...]
    samples: int
    passes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class _Limits:
    cap_bytes: int
    largest_width: int
    columns_per_sample: int
    fewest_columns: int
    seed: int


def collect_moments(
    model: ir.Model,
    names: Collection[str],
    samples: Iterable[Sample],
    *,
    cap_bytes: int = _CAP_BYTES,
    largest_width: int = _LARGEST_WIDTH,
    columns_per_sample: int = 256,
    fewest_columns: int = 16,
    seed: int = 0,
    on_progress: OnProgress = ignore_progress,
) -> CollectedMoments:
    """Run ``model`` over ``samples`` and average what the named nodes see.

    Conv of any rank and group, Gemm and MatMul with constant weights are taken, others listed
    with the reason. Where all the sums exceed ``cap_bytes`` the samples are gone through
    several times. What can be gone through only once is then kept in memory; so give a list,
    or something that starts anew. What comes back holds the moments of all passes; take
    `moments_by_pass` where that is too much.

    Args:
        model: A float graph; it is not changed.
        names: Names of nodes of its top level.
        samples: Model inputs by name, each with its batch dimension.
        cap_bytes: The sums of one pass take at most so much memory.
        largest_width: Layers with longer columns are refused.
        columns_per_sample: At most so many columns of each sample and layer are used.
        fewest_columns: Narrow layers need less: sixteen for each element of a column in all
            samples together, and of each sample at least so many.
        seed: Where the strides begin.
        on_progress: Told of every sample of every pass.

    Raises:
        QuantizeError: There are no samples, or the model does not run on them.
    """
    limits = _Limits(
        cap_bytes=cap_bytes,
        largest_width=largest_width,
        columns_per_sample=columns_per_sample,
        fewest_columns=fewest_columns,
        seed=seed,
    )
    parts = list(_passes(model, names, samples, limits, on_progress))
    return CollectedMoments(
        moments={name: seen for part in parts for name, seen in part.moments.items()},
        left=tuple(one for part in parts for one in part.left),
        samples=parts[-1].samples,
        passes=parts[-1].passes,
    )


def moments_by_pass(
    model: ir.Model,
    names: Collection[str],
    samples: Iterable[Sample],
    *,
    cap_bytes: int = _CAP_BYTES,
    on_progress: OnProgress = ignore_progress,
) -> Iterator[CollectedMoments]:
    """Give the moments of one pass after the other, as `collect_moments` would all together.

    Whoever lets go of a part before asking for the next needs memory for two passes. What has
    no moments is listed in the first part.

    Raises:
        QuantizeError: As `collect_moments`.
    """
    limits = _Limits(
        cap_bytes=cap_bytes,
        largest_width=_LARGEST_WIDTH,
        columns_per_sample=256,
        fewest_columns=16,
        seed=0,
    )
    yield from _passes(model, names, samples, limits, on_progress)


def _passes(
    model: ir.Model,
    names: Collection[str],
    samples: Iterable[Sample],
    limits: _Limits,
    on_progress: OnProgress,
) -> Iterator[CollectedMoments]:
    each = len(samples) if isinstance(samples, Sized) else _USUAL_SAMPLES
    layers, left = _choose(model, names, limits.largest_width, limits.cap_bytes)
    passes = _pack(set(layers.values()), limits.cap_bytes)
    ops = {node.name: node.op_type for node in model.graph}
    if len(passes) > 1 and iter(samples) is samples:
        samples = list(samples)
    for number, chosen in enumerate(passes):
        sums = [_Sums(layer, _most(layer, each, limits), limits.seed) for layer in chosen]
        step = "moments" if len(passes) == 1 else f"moments, pass {number + 1}/{len(passes)}"
        count = 0
        for values in Tap(model, {layer.source for layer in chosen}).stream(samples):
            for total in sums:
                total.add(values[total.layer.source], count)
            count += 1
            on_progress(Progress(step=step, done=count, unit="samples"))
        if not count:
            raise CalibrationError(
                "cannot collect moments: there are no samples",
                hint="give some 100 typical inputs with --calib",
            )
        found = {total.layer: total.finish() for total in sums}
        del sums
        mine = {name: found[layer] for name, layer in layers.items() if layer in found}
        reason = "its input is empty or not finite on the samples"
        left += [
            NoMoments(name=name, op=ops[name], reason=reason)
            for name, seen in mine.items()
            if seen is None
        ]
        yield CollectedMoments(
            moments={name: seen for name, seen in mine.items() if seen is not None},
            left=tuple(left),
            samples=count,
            passes=len(passes),
        )
        left = []
    if not passes:
        yield CollectedMoments(moments={}, left=tuple(left), samples=0, passes=0)


def _most(layer: Layer, samples: int, limits: _Limits) -> int:
    enough = -(-_COLUMNS_PER_ELEMENT * layer.width // max(samples, 1))
    return min(limits.columns_per_sample, max(limits.fewest_columns, enough))


def why_no_moments(
    node: ir.Node, *, largest_width: int = _LARGEST_WIDTH, cap_bytes: int = _CAP_BYTES
) -> str | None:
    """Say why no moments can be collected for a node, or None if they can."""
    layer = layer_of(node)
    if isinstance(layer, str):
        return layer
    if layer.width > largest_width:
        return f"its columns have {layer.width} elements (at most {largest_width})"
    if _bytes(layer) > cap_bytes:
        return f"its moments take {_bytes(layer)} bytes (at most {cap_bytes})"
    return None


def _choose(
    model: ir.Model, names: Collection[str], largest_width: int, cap_bytes: int
) -> tuple[dict[str, Layer], list[NoMoments]]:
    layers: dict[str, Layer] = {}
    left = []
    wanted = set(names)
    nodes = [node for node in model.graph if node.name in wanted]
    for name in sorted(wanted):
        named = [node for node in nodes if node.name == name]
        op = named[0].op_type if named else ""
        if len(named) != 1:
            reason = f"{len(named)} nodes have this name"
        elif (
            why := why_no_moments(named[0], largest_width=largest_width, cap_bytes=cap_bytes)
        ) is not None:
            reason = why
        else:
            layer = layer_of(named[0])
            assert isinstance(layer, Layer)
            layers[name] = layer
            continue
        left.append(NoMoments(name=name, op=op, reason=reason))
    return layers, left


def _bytes(layer: Layer) -> int:
    return layer.groups * layer.width**2 * 8


def _pack(layers: Collection[Layer], cap_bytes: int) -> list[list[Layer]]:
    """Share layers out over passes: the largest first, each into the first that has room.

    First-fit decreasing needs at most 11/9 of the fewest passes, plus one.
    """
    passes: list[list[Layer]] = []
    room: list[int] = []
    for layer in sorted(layers, key=lambda one: (-_bytes(one), one.source, repr(one.window))):
        need = _bytes(layer)
        at = next((at for at, free in enumerate(room) if free >= need), None)
        if at is None:
            at = len(room)
            passes.append([])
            room.append(cap_bytes)
        passes[at].append(layer)
        room[at] -= need
    return passes


class _Sums:
    """Adds up the columns of one layer; a few wait, because large products are cheaper."""

    def __init__(self, layer: Layer, most: int, seed: int) -> None:
        import numpy as np

        self.layer = layer
        self._most = most
        self._seed = seed
        self._second = np.zeros((layer.groups, layer.width, layer.width))
        self._total = np.zeros((layer.groups, layer.width))
        self._columns = 0
        self._waiting: list[np.ndarray] = []
        # with many groups the sums are larger than a sample's columns
        self._buffer_bytes = max(_BUFFER_BYTES, self._second.nbytes * (layer.groups > 1))

    def add(self, array: np.ndarray, number: int) -> None:
        """Take the columns of sample ``number`` in."""
        columns = self.layer.columns(array, most=self._most, start=self._seed + number)
        self._waiting.append(columns)
        if sum(one.nbytes for one in self._waiting) >= self._buffer_bytes:
            self._flush()

    def _flush(self) -> None:
        import numpy as np

        columns = np.concatenate(self._waiting, axis=1).astype(np.float32, copy=False)
        self._waiting.clear()
        with np.errstate(all="ignore"):  # what is not finite is refused at the end
            if len(columns) == 1:  # a product that BLAS knows to be symmetric
                self._second[0] += columns[0].T @ columns[0]
            else:
                self._second += columns.transpose(0, 2, 1) @ columns
            self._total += (np.ones((1, columns.shape[1]), np.float32) @ columns)[:, 0]
        self._columns += columns.shape[1]

    def finish(self) -> Moments | None:
        """Give the averages, or None where there are none that are finite."""
        import numpy as np

        if self._waiting:
            self._flush()
        if not self._columns or not np.isfinite(self._second).all():
            return None
        return Moments(
            second=self._second / self._columns,
            mean=self._total / self._columns,
            columns=self._columns,
        )
