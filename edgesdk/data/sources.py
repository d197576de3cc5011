"""What every place that data can come from offers, and the two that hold arrays.

A source has checked all it can when it is made: names, dtypes and shapes of what a file
declares. Samples are read one at a time, as often as asked, always in the same order.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from edgesdk.data.fit import (
    Fit,
    cast_to,
    describe_batch,
    dtype_findings,
    fit_array,
    fit_sample,
    match_names,
)
from edgesdk.data.functions import import_function, users_errors
from edgesdk.data.npz import (
    NpzArray,
    list_arrays,
    read_array,
    read_rows,
    refuse_objects,
)
from edgesdk.data.values import DataFinding
from edgesdk.errors import DataError

if TYPE_CHECKING:
    import numpy as np

    from edgesdk.tensors import TensorInfo

__all__ = ["FunctionSource", "NpzSource", "Sample", "Source", "one_by_one"]

#: One feed of the model: an array for each input.
Sample = dict[str, "np.ndarray"]

_MAX_LABEL_BYTES = 1 << 28


def one_by_one(samples: Iterator[Sample]) -> Iterator[tuple[int, Sample]]:
    """Give each sample as a block of one, for sources that do not hold several together."""
    for sample in samples:
        yield 1, {name: array[None] for name, array in sample.items()}


class Source(Protocol):
    """A place that samples come from.

    ``samples`` may be called any number of times; each call starts at the first sample. Labels
    have ``batch`` rows per sample, in the order of ``samples``. ``count`` is None where only
    reading to the end tells, and then ``read_labels`` may have to do that.
    """

    batch: int
    count: int | None
    findings: tuple[DataFinding, ...]
    class_names: tuple[str, ...]

    def samples(self) -> Iterator[Sample]:
        """Give the samples, from the first."""
        ...

    def blocks(self, nbytes: int) -> Iterator[tuple[int, Sample]]:
        """Give the samples in blocks: how many, and arrays with an axis in front for them.

        A block has about ``nbytes`` bytes, or is one sample.
        """
        ...

    def read_labels(self) -> np.ndarray | None:
        """Give the labels, or None where there are none."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class _Shard:
    """One file: its arrays in the order of the inputs, and how samples lie in them."""

    path: Path
    arrays: tuple[NpzArray, ...]
    fits: tuple[Fit, ...]
    labels: NpzArray | None
    count: int
    batch: int
    left_over: int


class NpzSource:
    """Samples from one ``.npz`` file, or from several in the order of their names."""

    class_names: tuple[str, ...] = ()

    def __init__(
        self,
        paths: Sequence[Path],
        inputs: Sequence[TensorInfo],
        *,
        limit: int | None,
        max_bytes: int,
    ) -> None:
        self._inputs = tuple(inputs)
        findings: list[DataFinding] = []
        shards: list[_Shard] = []
        total = nbytes = 0
        for path in paths:
            shard = self._open(path, findings if not shards else [])
            left = None if limit is None else max(1, limit // shard.batch) - total
            if left is not None and left <= 0:
                break
            shards.append(shard)
            taken = shard.count if left is None else min(left, shard.count)
            total += taken
            for array, fit in zip(shard.arrays, shard.fits, strict=True):
                nbytes += array.nbytes // max(1, array.shape[0]) * fit.rows * taken
            if nbytes > max_bytes:
                raise DataError(
                    f"cannot read data from {path}: it declares {nbytes} bytes of samples "
                    f"(at most {max_bytes})",
                    hint="give fewer samples",
                    nbytes=nbytes,
                )
        _check_alike(shards)
        findings.extend(_left_over(shards))
        self._shards = tuple(shards)
        self.batch = shards[0].batch
        self.count: int | None = total
        self.findings = tuple(findings)

    def samples(self) -> Iterator[Sample]:
        """Give the samples, file by file."""
        left = self.count or 0
        for shard in self._shards:
            groups = min(left, shard.count)
            left -= groups
            rows = [fit.rows for fit in shard.fits]
            for taken in read_rows(shard.path, shard.arrays, rows, groups=groups):
                yield {
                    info.name: cast_to(info, array[0] if fit.whole else array, str(shard.path))
                    for info, fit, array in zip(self._inputs, shard.fits, taken, strict=True)
                }

    def blocks(self, nbytes: int) -> Iterator[tuple[int, Sample]]:
        """Give the samples file by file, as many at once as ``nbytes`` hold."""
        left = self.count or 0
        for shard in self._shards:
            groups = min(left, shard.count)
            left -= groups
            rows = [fit.rows for fit in shard.fits]
            each = sum(
                array.nbytes // max(1, array.shape[0]) * count
                for array, count in zip(shard.arrays, rows, strict=True)
            )
            together = max(1, nbytes // max(1, each))
            done = 0
            for taken in read_rows(
                shard.path, shard.arrays, rows, groups=groups, together=together
            ):
                number = min(together, groups - done)
                done += number
                block = {}
                for info, fit, array in zip(self._inputs, shard.fits, taken, strict=True):
                    shape = array.shape[1:] if fit.whole else (fit.rows, *array.shape[1:])
                    rows_there = array.reshape(number, *shape)
                    block[info.name] = cast_to(info, rows_there, str(shard.path))
                yield number, block

    def read_labels(self) -> np.ndarray | None:
        """Give the labels of all files, one after another."""
        import numpy as np

        pieces = []
        for shard in self._shards:
            if shard.labels is None:
                return None
            piece = read_array(shard.path, shard.labels, max_bytes=_MAX_LABEL_BYTES)
            pieces.append(piece.reshape(1) if piece.ndim == 0 else piece)
            pieces[-1] = pieces[-1][: shard.count * shard.batch]
        if len({piece.shape[1:] for piece in pieces}) > 1:
            raise DataError(
                f"cannot read labels from {self._shards[0].path.parent}: their shapes differ "
                "from file to file"
            )
        labels = np.concatenate(pieces)
        return labels[: (self.count or 0) * self.batch]

    def _open(self, path: Path, findings: list[DataFinding]) -> _Shard:
        arrays = list_arrays(path)
        where = str(path)
        pairs, found = match_names(self._inputs, list(arrays), where)
        findings.extend(found)
        fits: dict[str, Fit] = {}
        for info in self._inputs:
            array = arrays[pairs[info.name]]
            fits[array.name] = fit_array(info, array.name, array.dtype, array.shape, where)
            findings.extend(dtype_findings(info, array.name, array.dtype))
        count, batch = describe_batch(fits, where)
        left_over = max(fit.left_over for fit in fits.values())
        labels = None if "labels" in pairs else arrays.get("labels")
        if labels is not None:
            _check_labels(labels, count * batch + left_over, where)
        ordered = tuple(arrays[pairs[info.name]] for info in self._inputs)
        return _Shard(
            path=path,
            arrays=ordered,
            fits=tuple(fits[array.name] for array in ordered),
            labels=labels,
            count=count,
            batch=batch,
            left_over=left_over,
        )


def _check_alike(shards: Sequence[_Shard]) -> None:
    first = shards[0]
    for shard in shards[1:]:
        where = f"cannot read data from {first.path.parent}"
        if (shard.labels is None) != (first.labels is None):
            raise DataError(
                f"{where}: some files have labels and others do not",
                hint="every file holds the same arrays",
            )
        if shard.batch != first.batch:
            raise DataError(
                f"{where}: a sample is {first.batch} rows of labels in {first.path.name} and "
                f"{shard.batch} in {shard.path.name}",
                hint="save every file alike: samples along the first axis, or whole batches "
                "with one axis more",
                batches=[first.batch, shard.batch],
            )


def _left_over(shards: Sequence[_Shard]) -> Iterator[DataFinding]:
    """Say how many rows at the ends of files do not fill a sample."""
    cut = [shard for shard in shards if shard.left_over]
    if not cut:
        return
    rows, name = sum(shard.left_over for shard in cut), cut[0].path.name
    text = f"the last {rows} samples of {name} are not used"
    if len(cut) > 1:
        text = f"{rows} samples at the ends of {len(cut)} files ({name}, ...) are not used"
    yield DataFinding(
        code="left-over-samples",
        severity="warning",
        message=f"{text}: the model takes {cut[0].batch} at a time",
        subject=name,
    )


class FunctionSource:
    """Samples that a function of the user's own yields, one dict per sample.

    The function takes no argument and is called again for every pass; each dict has an array
    for every input and may have ``labels``. It is the user's own code, named by the user on the
    command line, so it is imported and run; nothing in a file can name it.
    """

    class_names: tuple[str, ...] = ()
    findings: tuple[DataFinding, ...] = ()
    batch = 1

    def __init__(self, spec: str, inputs: Sequence[TensorInfo], *, limit: int | None) -> None:
        self.count: int | None = None
        self._spec = spec
        self._inputs = tuple(inputs)
        self._limit = limit
        self._function = import_function(spec, "read data from")
        self._labels: np.ndarray | None = None
        first = next(self._raw(), None)
        if first is None:
            raise DataError(f"cannot read data from {spec}: it yields no sample")
        self._fit(first, 0)
        self._labelled = "labels" in first and all(info.name != "labels" for info in inputs)

    def samples(self) -> Iterator[Sample]:
        """Call the function and give what it yields."""
        import numpy as np

        labels: list[np.ndarray] = []
        number = 0
        for number, item in enumerate(self._raw(), 1):
            if self._labelled:
                if "labels" not in item:
                    raise DataError(
                        f"cannot read data from {self._spec}: sample {number - 1} has no "
                        "'labels' and the first one has"
                    )
                labels.append(np.atleast_1d(np.asarray(item["labels"])))
            yield self._fit(item, number - 1)
        self.count = number
        if self._labelled:
            try:
                self._labels = np.concatenate(labels)
            except ValueError as exc:
                raise DataError(f"cannot read labels from {self._spec}: {exc}") from exc

    def blocks(self, nbytes: int) -> Iterator[tuple[int, Sample]]:  # noqa: ARG002 - as all sources
        """Give one sample after the other: they need not have one shape."""
        return one_by_one(self.samples())

    def read_labels(self) -> np.ndarray | None:
        """Give the labels; needs one pass over the data if there was none yet."""
        if self._labelled and self._labels is None:
            for _ in self.samples():
                pass
        return self._labels

    def _raw(self) -> Iterator[Mapping[str, Any]]:
        with users_errors(f"read data from {self._spec}"):
            items = iter(self._function())
        number = 0
        while self._limit is None or number < self._limit:
            with users_errors(f"read data from {self._spec}, sample {number}"):
                try:
                    item = next(items)
                except StopIteration:
                    return
            if not isinstance(item, Mapping):
                raise DataError(
                    f"cannot read data from {self._spec}: sample {number} is a "
                    f"{type(item).__name__} (expected a dict of input names to arrays)"
                )
            yield item
            number += 1

    def _fit(self, item: Mapping[str, Any], number: int) -> Sample:
        import numpy as np

        where = f"{self._spec}, sample {number}"
        pairs, _ = match_names(self._inputs, [str(name) for name in item], where)
        sample = {}
        for info in self._inputs:
            with users_errors(f"read data from {where}"):
                array = np.asarray(item[pairs[info.name]])
            sample[info.name] = fit_sample(info, array, where)
        return sample


def _check_labels(labels: NpzArray, rows: int, where: str) -> None:
    refuse_objects("labels", labels.dtype, where)
    if labels.dtype.kind not in "buif":
        raise DataError(
            f"cannot use 'labels' from {where}: they are {labels.dtype} (expected numbers)",
            hint="save the index of each class: np.unique(names, return_inverse=True)[1]",
        )
    if (labels.shape[0] if labels.shape else 1) != rows:
        raise DataError(
            f"cannot use 'labels' from {where}: there are {list(labels.shape)} of them and "
            f"{rows} samples",
            hint="save one label per sample, in the same order",
            labels=list(labels.shape),
            samples=rows,
        )
