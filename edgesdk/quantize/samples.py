"""Calibration samples out of whatever the library is given."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence, Sized
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from edgesdk.errors import DataError
from edgesdk.tensors import TensorInfo

if TYPE_CHECKING:
    import numpy as np

    from edgesdk.data.dataset import Dataset

__all__ = ["Calibration", "Sample", "take_samples"]

Sample = dict[str, "np.ndarray"]
Calibration: TypeAlias = (
    "str | Path | Dataset | np.ndarray | Mapping[str, np.ndarray] | Iterable[Sample]"
)

_WHERE = "the data"


def take_samples(
    data: Calibration | None,
    inputs: Sequence[TensorInfo],
) -> tuple[Callable[[], Iterable[Sample]] | None, int | None, np.ndarray | None, int]:
    """Give a function that starts the samples anew, their number, labels, rows of a batch."""
    import numpy as np

    from edgesdk.data.dataset import Dataset, open_dataset

    if data is None:
        return None, None, None, 1
    if isinstance(data, str | Path):
        data = open_dataset(data, inputs)
    if isinstance(data, Dataset):
        return data.samples, data.count, data.labels, data.batch
    if isinstance(data, np.ndarray):
        data = _of_one_input(data, inputs)
    if isinstance(data, Mapping):
        return _slices(data, inputs)
    if not isinstance(data, Iterable):
        raise DataError(
            f"cannot calibrate with an object of type {type(data).__name__} (expected a path, "
            "a Dataset, one array for each input by name, or an iterable of samples)"
        )
    # what starts anew by itself need not fit into memory; an iterator is read into it
    again = list(data) if iter(data) is data else data
    total = len(again) if isinstance(again, Sized) else None
    return (lambda: _fitted(again, inputs)), total, None, 1


def _of_one_input(array: np.ndarray, inputs: Sequence[TensorInfo]) -> Mapping[str, np.ndarray]:
    """Take one array for the only input of a model."""
    if len(inputs) == 1:
        return {inputs[0].name: array}
    raise DataError(
        "cannot calibrate: one array was given, the model has inputs "
        f"{', '.join(repr(info.name) for info in inputs) or 'none'}",
        hint="give a dict with one array for each input, by its name",
    )


def _slices(
    arrays: Mapping[str, np.ndarray], inputs: Sequence[TensorInfo]
) -> tuple[Callable[[], Iterable[Sample]], int, np.ndarray | None, int]:
    """Take samples along the first axis of one array per input."""
    import numpy as np

    from edgesdk.data.fit import cast_to, fit_array, match_names

    names, _ = match_names(inputs, list(arrays), _WHERE)
    plain = {info.name: np.asarray(arrays[names[info.name]]) for info in inputs}
    fits = {
        info.name: fit_array(
            info, names[info.name], plain[info.name].dtype, plain[info.name].shape, _WHERE
        )
        for info in inputs
    }
    counts = {name: fit.count for name, fit in fits.items()}
    if len(set(counts.values())) != 1:
        shown = ", ".join(f"{name}: {count}" for name, count in counts.items())
        raise DataError(
            f"cannot calibrate: the arrays have different numbers of samples ({shown})",
            hint="give one array per input, samples along the first axis",
        )
    count = next(iter(counts.values()))

    def slices() -> Iterable[Sample]:
        for index in range(count):
            sample = {}
            for info in inputs:
                fit = fits[info.name]
                rows = plain[info.name][index * fit.rows : (index + 1) * fit.rows]
                sample[info.name] = cast_to(info, rows[0] if fit.whole else rows, _WHERE)
            yield sample

    labels = None
    if "labels" in arrays and all(info.name != "labels" for info in inputs):
        labels = np.asarray(arrays["labels"])
    rows = fits[inputs[0].name].rows if inputs else 1
    return slices, count, labels, rows


def _fitted(samples: Iterable[Sample], inputs: Sequence[TensorInfo]) -> Iterable[Sample]:
    """Check each sample against the model's inputs as it goes by."""
    import numpy as np

    from edgesdk.data.fit import fit_sample

    for number, sample in enumerate(samples):
        where = f"sample {number}"
        if not isinstance(sample, Mapping):
            raise DataError(
                f"cannot calibrate with {where}: it is an object of type "
                f"{type(sample).__name__} (expected a dict with one array per input)",
                hint=f"the model has inputs {', '.join(repr(info.name) for info in inputs)}",
            )
        missing = [info.name for info in inputs if info.name not in sample]
        if missing:
            raise DataError(
                f"cannot calibrate with {where}: it has no {missing[0]!r} (it has "
                f"{', '.join(map(repr, sample)) or 'nothing'})",
                hint="give a dict with one array per input of the model",
            )
        yield {
            info.name: fit_sample(info, np.asarray(sample[info.name]), where) for info in inputs
        }
