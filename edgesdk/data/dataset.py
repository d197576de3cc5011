"""Opening calibration and labelled data from wherever it is, as one kind of value.

``open_dataset`` takes what ``--calib`` and ``--data`` take. Everything that a file declares is
checked at once, against the model's inputs; samples are read when they are iterated, so data
may be larger than memory.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from edgesdk.data.functions import is_function_spec
from edgesdk.data.pictures import SUFFIXES, PictureSource
from edgesdk.data.sources import FunctionSource, NpzSource, Sample, Source
from edgesdk.data.values import DataFinding
from edgesdk.errors import DataError

if TYPE_CHECKING:
    import numpy as np

    from edgesdk.data.preprocess import Preprocess
    from edgesdk.tensors import TensorInfo

__all__ = ["MAX_DATA_BYTES", "Dataset", "open_dataset"]

#: How many bytes of samples one dataset may declare, after the limit is applied.
MAX_DATA_BYTES = 64 << 30


class Dataset:
    """Samples for a model's inputs, and labels if there are any; made by `open_dataset`.

    Attributes:
        spec: Where the data comes from, as the user wrote it.
        inputs: The model's inputs that samples fit.
        batch: Rows of the model's batch that one sample fills: 1, or the fixed ``B`` of a model
            whose first dimension is ``B``.
        findings: What is allowed and probably not meant.
        class_names: Names of the classes in the order of their numbers, where data names them.
    """

    def __init__(self, *, spec: str, inputs: Sequence[TensorInfo], source: Source) -> None:
        self.spec = spec
        self.inputs = tuple(inputs)
        self._source = source
        self._digest: str | None = None
        self._labels: np.ndarray | None = None
        self._labels_read = False

    @property
    def batch(self) -> int:
        """Rows of the model's batch that one sample fills."""
        return self._source.batch

    @property
    def count(self) -> int | None:
        """How many samples there are; None where only a pass over a function's data tells."""
        return self._source.count

    @property
    def findings(self) -> tuple[DataFinding, ...]:
        """What is allowed and probably not what was meant."""
        return self._source.findings

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes in the order of their numbers; empty where data has numbers."""
        return self._source.class_names

    @property
    def labels(self) -> np.ndarray | None:
        """Labels in the order of `samples`, ``batch`` rows per sample; None if there are none.

        For a function's data this takes one pass over it, unless one was made.

        Raises:
            DataError: The labels cannot be read.
        """
        if not self._labels_read:
            labels = self._source.read_labels()
            if labels is not None and labels.ndim == 2 and labels.shape[1] == 1:
                labels = labels[:, 0]
            self._labels, self._labels_read = labels, True
        return self._labels

    @property
    def digest(self) -> str:
        """SHA-256 over names, dtypes, shapes and bytes of all samples, as the model gets them.

        It does not depend on the kind of file, on compression or on labels. A complete pass
        over `samples` leaves it behind; without one this makes a pass.

        Raises:
            DataError: A sample cannot be read.
        """
        if self._digest is None:
            for _ in self.samples():
                pass
        assert self._digest is not None, "a complete pass leaves the digest"
        return self._digest

    def samples(self) -> Iterator[Sample]:
        """Give one dict of arrays per sample, each ready to feed; every call starts anew.

        Each array has the input's rank and dtype. Where the model's first dimension is the
        batch it is 1, or ``B`` for a model with a fixed batch of ``B``.

        Raises:
            DataError: A file is damaged, or a sample does not fit its input.
        """
        if self._digest is not None:
            yield from self._source.samples()
            return
        digest = hashlib.sha256()
        for sample in self._source.samples():
            for name, array in sample.items():
                head = json.dumps([name, array.dtype.name, list(array.shape)])
                digest.update(head.encode() + b"\n")
                digest.update(array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes())
            yield sample
        self._digest = digest.hexdigest()

    def blocks(self, nbytes: int) -> Iterator[tuple[int, Sample]]:
        """Give the same samples in blocks of about ``nbytes`` bytes; every call starts anew.

        A block is the number of its samples, and for each input an array with an axis in front
        that counts them. A block need not have the shapes of the one before it.

        Raises:
            DataError: A file is damaged, or a sample does not fit its input.
        """
        return self._source.blocks(nbytes)


def open_dataset(
    spec: str | Path,
    inputs: Sequence[TensorInfo],
    *,
    preprocess: Preprocess | None = None,
    limit: int | None = None,
    max_bytes: int = MAX_DATA_BYTES,
) -> Dataset:
    """Open data for a model and check it against the model's inputs.

    Args:
        spec: An ``.npz`` (one array per input, samples along the first axis, optional
            ``labels``), a folder of them, a folder of pictures (needs ``preprocess``; a folder
            per class, or ``labels.csv``), or ``module:function`` that yields dicts.
        inputs: What the model takes; symbolic extents fit everything.
        preprocess: From a picture to an input; arrays are taken as they are.
        limit: At most that many samples are given (rows, for a model with a fixed batch).
        max_bytes: Refuse files that declare more bytes of samples than that.

    Raises:
        DataError: There is nothing, it is damaged, or a name, dtype or shape is not what an
            input takes.
    """
    inputs = tuple(inputs)
    if not inputs:
        raise DataError("cannot feed data to the model: it has no inputs")
    if limit is not None and limit < 1:
        raise DataError(f"cannot read {limit} samples from {spec} (expected at least 1)")
    text = str(spec)
    if is_function_spec(text):
        source: Source = FunctionSource(text, inputs, limit=limit)
    else:
        source = _open_path(Path(spec), inputs, preprocess, limit, max_bytes)
    return Dataset(spec=text, inputs=inputs, source=source)


def _open_path(
    path: Path,
    inputs: Sequence[TensorInfo],
    preprocess: Preprocess | None,
    limit: int | None,
    max_bytes: int,
) -> Source:
    try:
        if path.is_dir():
            shards = sorted(
                (
                    entry
                    for entry in path.iterdir()
                    if entry.suffix == ".npz" and entry.is_file()
                ),
                key=lambda entry: entry.name,
            )
            if shards:
                return NpzSource(shards, inputs, limit=limit, max_bytes=max_bytes)
            return PictureSource(path, inputs, preprocess=preprocess, limit=limit)
        if path.is_file():
            if path.suffix.lower() in SUFFIXES:
                raise DataError(
                    f"cannot read data from {path}: it is one picture (a folder expected)",
                    hint="put it into a folder and give the folder",
                )
            return NpzSource([path], inputs, limit=limit, max_bytes=max_bytes)
        exists = path.exists()
    except (OSError, ValueError) as exc:
        raise DataError(f"cannot read data from {path}: {exc}") from exc
    raise DataError(
        f"cannot read data from {path}: "
        + (
            "it is neither a file nor a folder" if exists else "there is no such file or folder"
        ),
        hint="give an .npz, a folder of .npz or pictures, or module:function",
        path=str(path),
    )
