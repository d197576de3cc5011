"""Whether an array is what an input takes: name, dtype and shape, and how samples lie in it.

An array holds samples along its first axis. Where that axis is the input's own first axis (as
many dimensions) a sample is as many rows as the input's batch: one, or a fixed ``B``. Where the
array has one dimension more, each row is a whole input.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import permutations
from typing import TYPE_CHECKING, Any

from edgesdk.data.npz import refuse_objects
from edgesdk.data.values import DataFinding
from edgesdk.errors import DataError

if TYPE_CHECKING:
    import numpy as np

    from edgesdk.tensors import TensorInfo

__all__ = [
    "Fit",
    "cast_to",
    "check_dtype",
    "describe_batch",
    "dtype_findings",
    "fit_array",
    "fit_sample",
    "match_names",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Fit:
    """How samples lie in one array.

    Attributes:
        rows: Rows of the array that make one sample.
        whole: True where a row is a whole input, so the axis of rows is dropped.
        count: How many samples the array holds; rows left over are not counted.
        left_over: Rows at the end that do not fill a sample.
    """

    rows: int
    whole: bool
    count: int
    left_over: int


def match_names(
    inputs: Sequence[TensorInfo], arrays: Sequence[str], where: str
) -> tuple[dict[str, str], list[DataFinding]]:
    """Pair the model's inputs with arrays by name.

    A model with one input takes the only array, whatever it is called. ``labels`` is nobody's
    input unless an input has that name.

    Returns:
        The array's name for each input's name, and what is worth saying.

    Raises:
        DataError: An input has no array.
    """
    wanted = [info.name for info in inputs]
    others = [name for name in arrays if name not in wanted and name != "labels"]
    missing = [name for name in wanted if name not in arrays]
    if len(wanted) == 1 and missing and len(others) == 1:
        finding = DataFinding(
            code="array-name",
            severity="info",
            message=f"array {others[0]!r} is taken for the model's only input, {wanted[0]!r}",
            subject=others[0],
        )
        return {wanted[0]: others[0]}, [finding]
    if missing:
        near = difflib.get_close_matches(missing[0], others, n=1)
        raise DataError(
            f"cannot read data from {where}: there is no array {missing[0]!r} "
            f"(it has {_listed(arrays)}; the model's inputs are {_listed(wanted)})",
            hint=f"rename {near[0]!r} to {missing[0]!r}"
            if near
            else "save one array per input, named like the input: "
            "np.savez(path, **{input_name: array})",
            missing=missing,
            arrays=list(arrays)[:50],
        )
    findings = [
        DataFinding(
            code="unused-array",
            severity="info",
            message=f"array {name!r} belongs to no input and is not read",
            subject=name,
        )
        for name in others[:20]
    ]
    return {name: name for name in wanted}, findings


def fit_array(
    info: TensorInfo, name: str, dtype: np.dtype[Any], shape: tuple[int, ...], where: str
) -> Fit:
    """Say how samples of one input lie in an array that has samples first.

    Raises:
        DataError: The shape or the dtype is not what the input takes, or there is no sample.
    """
    check_dtype(info, name, dtype, where)
    if shape and shape[0] == 0:
        raise DataError(
            f"cannot use {name!r} from {where}: it holds no sample ({list(shape)})", array=name
        )
    rank = len(info.shape)
    if len(shape) == rank and rank and _extents_fit(info.shape[1:], shape[1:]):
        batch = info.shape[0]
        rows = batch if isinstance(batch, int) and batch > 1 else 1
        if shape[0] < rows:
            raise DataError(
                f"cannot use {name!r} from {where}: it has {shape[0]} rows and the model takes "
                f"{rows} at a time",
                hint=f"give at least {rows} samples, or export the model with a batch of 1",
                array=name,
            )
        return Fit(rows=rows, whole=False, count=shape[0] // rows, left_over=shape[0] % rows)
    if len(shape) == rank + 1 and _extents_fit(info.shape, shape[1:]):
        return Fit(rows=1, whole=True, count=shape[0], left_over=0)
    raise _wrong_shape(info, name, shape, where, samples_first=True)


def fit_sample(info: TensorInfo, array: np.ndarray, where: str) -> np.ndarray:
    """Give one sample in the shape and dtype of the input; a missing batch of 1 is added.

    Raises:
        DataError: The shape or the dtype is not what the input takes.
    """
    check_dtype(info, info.name, array.dtype, where)
    takes_one = bool(info.shape) and not (isinstance(info.shape[0], int) and info.shape[0] != 1)
    if array.ndim == len(info.shape) - 1 and takes_one:
        array = array.reshape(1, *array.shape)
    if array.ndim != len(info.shape) or not _extents_fit(info.shape, array.shape):
        raise _wrong_shape(info, info.name, array.shape, where, samples_first=False)
    return cast_to(info, array, where)


def cast_to(info: TensorInfo, array: np.ndarray, where: str) -> np.ndarray:
    """Give the array in the input's dtype, contiguous, after making sure that nothing is NaN.

    Raises:
        DataError: A value is not a number.
    """
    import numpy as np

    if array.dtype.kind == "f" and np.isnan(array).any():
        raise DataError(
            f"cannot use {info.name!r} from {where}: {int(np.isnan(array).sum())} of its "
            f"{array.size} values are not a number (NaN)",
            hint="look for a division by zero in what made the data",
            input=info.name,
        )
    return np.ascontiguousarray(array, dtype=np.dtype(info.dtype)).reshape(array.shape)


def check_dtype(info: TensorInfo, name: str, dtype: np.dtype[Any], where: str) -> None:
    """Refuse an array whose values would change when cast to the input's dtype.

    Raises:
        DataError: The cast loses something, or the input takes no numbers.
    """
    import numpy as np

    refuse_objects(name, dtype, where)
    if info.dtype == "string":
        raise DataError(
            f"cannot feed input {info.name!r}: it takes strings (expected numbers)",
            hint="cut the part that reads text off the model, and feed what it makes",
            input=info.name,
        )
    try:
        wanted = np.dtype(info.dtype)
    except TypeError as exc:
        raise DataError(
            f"cannot feed input {info.name!r}: numpy has no dtype {info.dtype!r}",
            input=info.name,
        ) from exc
    if dtype.kind not in "buif" or not np.can_cast(dtype, wanted, "safe"):
        numbers = dtype.kind in "buif"
        raise DataError(
            f"cannot use {name!r} from {where}: it is {dtype} and the model takes {wanted} "
            f"({'the cast could lose values' if numbers else 'expected numbers'})",
            hint=f"save it with .astype(np.{wanted}) if that loses nothing"
            if numbers
            else "save numbers",
            array=name,
            dtype=str(dtype),
            expected=str(wanted),
        )


def dtype_findings(info: TensorInfo, name: str, dtype: np.dtype[Any]) -> list[DataFinding]:
    """Say where whole numbers are fed to an input of fractions, as they are."""
    if dtype.kind not in "bui" or not info.dtype.startswith("float"):
        return []
    return [
        DataFinding(
            code="whole-number-data",
            severity="warning",
            message=f"array {name!r} is {dtype} and input {info.name!r} takes {info.dtype}: "
            "values are passed on as they are, without scaling",
            hint="save what the model was trained on, e.g. (pixels / 255).astype(np.float32)",
            subject=name,
        )
    ]


def describe_batch(fits: Mapping[str, Fit], where: str) -> tuple[int, int]:
    """Give how many samples all arrays hold, and how many rows of labels belong to one.

    Raises:
        DataError: The arrays hold different numbers of samples.
    """
    counts = {name: fit.count for name, fit in fits.items()}
    if len(set(counts.values())) > 1:
        listed = ", ".join(f"{name!r} {count}" for name, count in counts.items())
        raise DataError(
            f"cannot read data from {where}: arrays differ in number of samples: {listed}",
            hint="every array has one entry per sample along its first axis",
            counts=counts,
        )
    return min(counts.values()), max(fit.rows for fit in fits.values())


def _extents_fit(wanted: Sequence[int | str | None], seen: Sequence[int]) -> bool:
    return len(wanted) == len(seen) and all(
        extent == have if isinstance(extent, int) else have > 0
        for extent, have in zip(wanted, seen, strict=True)
    )


def _wrong_shape(
    info: TensorInfo, name: str, shape: tuple[int, ...], where: str, *, samples_first: bool
) -> DataError:
    expected = ", ".join("?" if extent is None else str(extent) for extent in info.shape)
    return DataError(
        f"cannot use {name!r} from {where}: it has the shape {list(shape)} and input "
        f"{info.name!r} is [{expected}]" + (" (samples along the first axis)" * samples_first),
        hint=_shape_hint(info, shape),
        array=name,
        shape=list(shape),
        expected=list(info.shape),
    )


def _shape_hint(info: TensorInfo, shape: tuple[int, ...]) -> str:
    """Recognise axes in another order, and a missing axis of 1."""
    wanted = info.shape[1:]
    if len(shape) == len(info.shape) and 1 < len(wanted) <= 5:
        for order in permutations(range(1, len(shape))):
            if _extents_fit(wanted, [shape[axis] for axis in order]):
                return f"its axes are in another order: save np.transpose(array, {(0, *order)})"
    if len(shape) == len(info.shape) - 1:
        for axis, extent in enumerate(info.shape):
            rest = info.shape[1:axis] + info.shape[axis + 1 :]
            if axis and extent == 1 and _extents_fit(rest, shape[1:]):
                return f"an axis of 1 is missing: save np.expand_dims(array, {axis})"
    return "what follows the axis of samples must be the input's shape"


def _listed(names: Sequence[str]) -> str:
    listed = ", ".join(repr(name) for name in list(names)[:10])
    return (listed or "none") + (", ..." if len(names) > 10 else "")
