"""Samples from a folder of pictures. The only module that lets Pillow open files.

Two layouts are read: one subfolder per class, or all pictures in one folder with their labels
in ``labels.csv`` or ``labels.txt`` (a name and a label per line). Only the listed formats are
opened, since some of Pillow's other readers start programs, and a picture's size is looked at
before its pixels are.
"""

from __future__ import annotations

import csv
import warnings
from collections.abc import Iterator, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING

from edgesdk.data.fit import cast_to, fit_sample
from edgesdk.data.sources import one_by_one
from edgesdk.data.values import DataFinding
from edgesdk.errors import DataError

if TYPE_CHECKING:
    import numpy as np

    from edgesdk.data.preprocess import Preprocess
    from edgesdk.data.sources import Sample
    from edgesdk.tensors import TensorInfo

__all__ = ["SUFFIXES", "PictureSource"]

SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
_FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
_LABEL_FILES = ("labels.csv", "labels.txt")
_MAX_PIXELS = 100_000_000
_MAX_PICTURES = 2_000_000
_MAX_LABEL_FILE_BYTES = 256 << 20


class PictureSource:
    """Pictures of a folder, made into model inputs by a preprocessing block.

    Pictures come in the order of their names. With a subfolder per class they come in turns,
    one of each class, so that a limit keeps every class; class numbers are the numbers that the
    subfolders are called, or else the places of their names in sorted order.
    """

    def __init__(
        self,
        folder: Path,
        inputs: Sequence[TensorInfo],
        *,
        preprocess: Preprocess | None,
        limit: int | None,
    ) -> None:
        self._folder = folder
        self._info, self._preprocess = _one_input(folder, inputs, preprocess)
        self._paths, self._labels, self.class_names = _find(folder)
        batch = self._info.shape[0]
        self.batch = batch if isinstance(batch, int) and batch > 1 else 1
        count = len(self._paths) // self.batch
        if not count:
            raise DataError(
                f"cannot read data from {folder}: it has {len(self._paths)} pictures and the "
                f"model takes {self.batch} at a time"
            )
        self.count: int | None = (
            count if limit is None else min(count, max(1, limit // self.batch))
        )
        left_over = len(self._paths) % self.batch
        self.findings: tuple[DataFinding, ...] = ()
        if left_over and self.count == count:
            self.findings = (
                DataFinding(
                    code="left-over-samples",
                    severity="warning",
                    message=f"the last {left_over} pictures are not used: the model takes "
                    f"{self.batch} at a time",
                    subject=str(folder),
                ),
            )

    def samples(self) -> Iterator[Sample]:
        """Open and preprocess the pictures, as many at a time as the model takes."""
        import numpy as np

        for start in range(0, (self.count or 0) * self.batch, self.batch):
            paths = self._paths[start : start + self.batch]
            made = [self._make(path) for path in paths]
            if len({array.shape for array in made}) > 1:
                raise DataError(
                    f"cannot put {self.batch} pictures into one batch: their sizes differ "
                    f"({paths[0].name} gives {list(made[0].shape)})",
                    hint="add resize to the preprocess block",
                )
            where = str(paths[0])
            batch = fit_sample(self._info, np.stack(made), where)
            yield {self._info.name: cast_to(self._info, batch, where)}

    def blocks(self, nbytes: int) -> Iterator[tuple[int, Sample]]:  # noqa: ARG002 - as all sources
        """Give one sample after the other: each is made from its files anyway."""
        return one_by_one(self.samples())

    def read_labels(self) -> np.ndarray | None:
        """Give the class number of each picture."""
        import numpy as np

        if self._labels is None:
            return None
        return np.array(self._labels[: (self.count or 0) * self.batch], dtype=np.int64)

    def _make(self, path: Path) -> np.ndarray:
        from PIL import Image, UnidentifiedImageError

        try:
            with warnings.catch_warnings():
                warnings.simplefilter(
                    "ignore"
                )  # about odd metadata; our own cap is below Pillow's
                with Image.open(path, formats=_FORMATS) as picture:
                    if picture.width * picture.height > _MAX_PIXELS:
                        raise DataError(
                            f"cannot read picture {path}: it has {picture.width} x "
                            f"{picture.height} pixels (at most {_MAX_PIXELS} in all)",
                            hint="make it smaller, or leave it out",
                        )
                    picture.load()
                    return self._preprocess.apply(picture)
        except DataError as exc:
            if str(path) in str(exc):
                raise
            raise DataError(f"{exc} in {path}", hint=exc.hint, path=str(path)) from exc
        except UnidentifiedImageError as exc:
            raise DataError(
                f"cannot read picture {path}: not one of {', '.join(_FORMATS)}",
                path=str(path),
            ) from exc
        except Exception as exc:
            raise DataError(
                f"cannot read picture {path}: {type(exc).__name__}: {exc}", path=str(path)
            ) from exc


def _one_input(
    folder: Path, inputs: Sequence[TensorInfo], preprocess: Preprocess | None
) -> tuple[TensorInfo, Preprocess]:
    if len(inputs) != 1:
        raise DataError(
            f"cannot feed pictures from {folder}: the model has {len(inputs)} inputs (not 1)",
            hint="yield all inputs from a function of your own and give module:function",
        )
    if preprocess is None:
        raise DataError(
            f"cannot read pictures from {folder}: the recipe has no preprocess block",
            hint="say how the model was fed in training, e.g. preprocess: {resize: [224, 224], "
            "mean: [0.485, 0.456, 0.406], std: [0.229, 0.224, 0.225]}",
        )
    reason = preprocess.why_not_input(inputs[0])
    if reason:
        raise DataError(
            f"cannot feed pictures from {folder} to input {inputs[0].name!r}: {reason}",
            hint="correct the preprocess block of the recipe",
        )
    return inputs[0], preprocess


def _find(folder: Path) -> tuple[list[Path], list[int] | None, tuple[str, ...]]:
    """Give the pictures in order, their labels if any, and the names of the classes."""
    try:
        entries = sorted(folder.iterdir(), key=lambda path: path.name)
        flat = [path for path in entries if _is_picture(path)]
        classes = {
            path.name: sorted(filter(_is_picture, path.iterdir()), key=lambda path: path.name)
            for path in entries
            if path.is_dir() and not path.name.startswith(".")
        }
    except OSError as exc:
        raise DataError(f"cannot read data from {folder}: {exc.strerror or exc}") from exc
    classes = {name: paths for name, paths in classes.items() if paths}
    if flat and classes:
        raise DataError(
            f"cannot read data from {folder}: it has pictures beside and in its subfolders",
            hint="keep one subfolder per class, or all pictures in one folder",
        )
    if len(flat) + sum(map(len, classes.values())) > _MAX_PICTURES:
        raise DataError(f"cannot read data from {folder}: more than {_MAX_PICTURES} pictures")
    if not classes:
        if not flat:
            raise DataError(
                f"cannot read data from {folder}: there is no .npz and no picture in it",
                hint="pictures end in " + ", ".join(SUFFIXES),
            )
        labels, names = _read_label_file(folder, flat)
        return flat, labels, names
    numbers, names = _class_numbers(list(classes))
    turns = zip_longest(
        *([(path, numbers[name]) for path in paths] for name, paths in classes.items())
    )
    pairs = [pair for turn in turns for pair in turn if pair is not None]
    return [path for path, _ in pairs], [label for _, label in pairs], names


def _is_picture(path: Path) -> bool:
    return path.suffix.lower() in SUFFIXES and not path.name.startswith(".") and path.is_file()


def _class_numbers(names: Sequence[str]) -> tuple[dict[str, int], tuple[str, ...]]:
    """Number the classes: by the number that is the name, else by place in sorted order."""
    distinct = sorted(set(names))
    if all(name.isascii() and name.isdigit() and len(name) < 10 for name in distinct):
        return {name: int(name) for name in distinct}, ()
    return {name: number for number, name in enumerate(distinct)}, tuple(distinct)


def _read_label_file(
    folder: Path, pictures: Sequence[Path]
) -> tuple[list[int] | None, tuple[str, ...]]:
    found = [folder / name for name in _LABEL_FILES if (folder / name).is_file()]
    if not found:
        return None, ()
    try:
        if found[0].stat().st_size > _MAX_LABEL_FILE_BYTES:
            raise DataError(f"cannot read labels from {found[0]}: the file is too large")
        text = found[0].read_text(encoding="utf-8-sig")
        rows = [
            row
            for row in (
                csv.reader(text.splitlines())
                if found[0].suffix == ".csv"
                else (line.rsplit(None, 1) for line in text.splitlines())
            )
            if row and any(cell.strip() for cell in row)
        ]
    except OSError as exc:
        raise DataError(f"cannot read labels from {found[0]}: {exc.strerror or exc}") from exc
    except (UnicodeDecodeError, csv.Error) as exc:
        raise DataError(f"cannot read labels from {found[0]}: {exc}") from exc
    for number, row in enumerate(rows, 1):
        if len(row) != 2:
            raise DataError(
                f"cannot read labels from {found[0]}: entry {number} has {len(row)} field(s) "
                "(expected a file name and a label)"
            )
    by_name = {row[0].strip(): row[1].strip() for row in rows}
    missing = [path.name for path in pictures if path.name not in by_name]
    if missing:
        raise DataError(
            f"cannot read labels from {found[0]}: {len(missing)} of {len(pictures)} pictures "
            f"have none, {missing[0]!r} first",
            hint="one line per picture: its file name and its label",
        )
    chosen = [by_name[path.name] for path in pictures]
    numbers, names = _class_numbers(chosen)
    return [numbers[label] for label in chosen], names
