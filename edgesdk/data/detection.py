"""Mean average precision of detectors, as COCO defines it, over areas of all sizes.

Expected of a model, for each picture: ``boxes`` ``[K, 4]`` as x1, y1, x2, y2, ``scores``
``[K]`` and ``classes`` ``[K]`` (whole numbers, of any dtype), and maybe ``count``: how many of
the K are meant. An axis of 1 in front is the batch. Labels are ``[pictures, M, 5]``: class, x1,
y1, x2, y2 in the same units and numbers, with class -1 in rows that pad.

The rules are those of the COCO evaluation (Lin and others, 2014): a detection takes the free
box of its class and picture that it overlaps most; at most 100 detections of a class and
picture; precision is made monotonous and read at 101 recalls.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgesdk.data.measures import ResampledMeasure
from edgesdk.errors import DataError

if TYPE_CHECKING:
    import numpy as np

__all__ = ["Detections", "find_roles", "measure_map", "read_detections"]

_ROLES = {
    "boxes": re.compile(r"box", re.IGNORECASE),
    "scores": re.compile(r"score|conf", re.IGNORECASE),
    "classes": re.compile(r"class|label|categor", re.IGNORECASE),
    "count": re.compile(r"num|count|valid", re.IGNORECASE),
}
_NEEDED = ("boxes", "scores", "classes")
_MOST_DETECTIONS = 100
#: Fewer than for a mean: each resample reads hundreds of curves.
_DRAWS = 300
_FORMAT = (
    "a detector gives boxes [K, 4] as x1, y1, x2, y2, scores [K] and classes [K] for each "
    "picture; name its outputs with --detections boxes=NAME,scores=NAME,classes=NAME"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Detections:
    """What was found in one picture; rows of all three go together."""

    boxes: np.ndarray
    scores: np.ndarray
    classes: np.ndarray


def find_roles(names: Sequence[str], given: Mapping[str, str]) -> dict[str, str]:
    """Say which output is what: as given, else by its name.

    Raises:
        DataError: A role that is needed has no output, or an output is not there.
    """
    roles = dict(given)
    for role, name in given.items():
        if role not in _ROLES or name not in names:
            what = f"output {name!r}" if role in _ROLES else f"role {role!r}"
            raise DataError(
                f"cannot measure the mAP: there is no {what} (outputs: {', '.join(names)}; "
                f"roles: {', '.join(_ROLES)})",
                hint=_FORMAT,
            )
    for role, pattern in _ROLES.items():
        fits = [n for n in names if pattern.search(n) and n not in roles.values()]
        if role not in roles and fits:
            roles[role] = fits[0]
    missing = [role for role in _NEEDED if role not in roles]
    if missing:
        raise DataError(
            f"cannot measure the mAP: no output is called like {' or '.join(missing)} "
            f"(outputs: {', '.join(names) or 'none'})",
            hint=_FORMAT,
        )
    return roles


def read_detections(
    outputs: Mapping[str, Sequence[np.ndarray]], roles: Mapping[str, str], *, batch: int = 1
) -> list[Detections]:
    """Take the detections of every picture out of a model's outputs.

    Args:
        outputs: By name, one array per sample.
        roles: Which output is what, see `find_roles`.
        batch: Pictures in one sample.

    Raises:
        DataError: Shapes do not go together, or boxes or scores are not finite.
    """
    import numpy as np

    found: list[Detections] = []
    samples = len(outputs[roles["boxes"]])
    for index in range(samples):
        parts = {role: np.asarray(outputs[name][index]) for role, name in roles.items()}
        found += [
            _one_picture(parts, picture, batch, index * batch + picture)
            for picture in range(batch)
        ]
    return found


def _one_picture(
    parts: Mapping[str, np.ndarray], picture: int, batch: int, number: int
) -> Detections:
    import numpy as np

    def of(role: str, rank: int) -> np.ndarray:
        array = parts[role]
        if array.ndim == rank + 1 and array.shape[0] == batch:
            array = array[picture]
        if array.ndim != rank:
            raise DataError(
                f"cannot measure the mAP: {role} of picture {number} are "
                f"{list(parts[role].shape)}",
                hint=_FORMAT,
            )
        return array.astype(np.float64)

    boxes, scores, classes = of("boxes", 2), of("scores", 1), of("classes", 1)
    if boxes.shape[1:] != (4,) or not len(boxes) == len(scores) == len(classes):
        raise DataError(
            f"cannot measure the mAP: picture {number} has boxes {list(boxes.shape)}, scores "
            f"{list(scores.shape)} and classes {list(classes.shape)}",
            hint=_FORMAT,
        )
    if "count" in parts:
        counts = parts["count"].astype(np.float64).ravel()
        if len(counts) not in (1, batch) or not np.isfinite(counts).all():
            raise DataError(
                f"cannot measure the mAP: the count of picture {number} is "
                f"{counts[:5].tolist()}",
                hint=_FORMAT,
            )
        kept = int(np.clip(counts[picture % len(counts)], 0, len(boxes)))
        boxes, scores, classes = boxes[:kept], scores[:kept], classes[:kept]
    for role, array in (("boxes", boxes), ("scores", scores), ("classes", classes)):
        if not np.isfinite(array).all():
            raise DataError(
                f"cannot measure the mAP: {role} of picture {number} hold NaN or infinity",
                hint="look at one sample with edgesdk run, or try --precision fp32",
            )
    return Detections(boxes=boxes, scores=scores, classes=classes.round().astype(np.int64))


def _overlaps(one: np.ndarray, two: np.ndarray) -> np.ndarray:
    """Intersection over union, ``[len(one), len(two)]``; boxes without area overlap nothing."""
    import numpy as np

    low = np.maximum(one[:, None, :2], two[None, :, :2])
    high = np.minimum(one[:, None, 2:], two[None, :, 2:])
    inside = np.clip(high - low, 0, None).prod(axis=2)
    areas = [np.clip(each[:, 2:] - each[:, :2], 0, None).prod(axis=1) for each in (one, two)]
    union = areas[0][:, None] + areas[1][None, :] - inside
    shared: np.ndarray = np.divide(inside, union, out=np.zeros_like(inside), where=union > 0)
    return shared


def _match(overlaps: np.ndarray, thresholds: np.ndarray) -> np.ndarray:
    """Say which detections (best first) are right, ``[thresholds, detections]``."""
    import numpy as np

    right = np.zeros((len(thresholds), len(overlaps)), dtype=bool)
    for level, threshold in enumerate(thresholds):
        free = np.ones(overlaps.shape[1], dtype=bool)
        for number, row in enumerate(overlaps):
            best, found = min(float(threshold), 1 - 1e-10), -1
            for box in np.flatnonzero(free & (row >= best)):
                if row[box] >= best:  # of equals the last, as COCO's own loop has it
                    best, found = float(row[box]), int(box)
            if found >= 0:
                free[found] = False
                right[level, number] = True
    return right


@dataclass(frozen=True, slots=True, kw_only=True)
class _Class:
    """All of one class, best detections first: picture of each, and whether it is right."""

    pictures: np.ndarray
    right: np.ndarray
    truths: np.ndarray

    def precision(self, weights: np.ndarray) -> np.ndarray | None:
        """Average precision at each threshold; None where no box is to be found."""
        import numpy as np

        wanted = float(weights @ self.truths)
        if wanted <= 0:
            return None
        each = weights[self.pictures]
        hits = np.cumsum(self.right * each, axis=1)
        misses = np.cumsum(~self.right * each, axis=1)
        recall = hits / wanted
        precision = hits / np.maximum(hits + misses, 1e-12)
        precision = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
        grid = np.linspace(0.0, 1.0, 101)
        found = np.zeros(len(self.right))
        for level, (curve, reached) in enumerate(zip(precision, recall, strict=True)):
            places = np.searchsorted(reached, grid, side="left")
            inside = places < len(curve)
            found[level] = curve[places[inside]].sum() / len(grid)
        return found


def _classes(
    detections: Sequence[Detections], labels: np.ndarray, thresholds: np.ndarray
) -> list[_Class]:
    import numpy as np

    known = labels[..., 0].astype(np.int64)
    found = []
    for name in np.unique(known[known >= 0]).tolist():
        scores, pictures, right = [], [], []
        truths = (known == name).sum(axis=1)
        for number, seen in enumerate(detections):
            ours = np.flatnonzero(seen.classes == name)
            order = ours[np.argsort(-seen.scores[ours], kind="stable")][:_MOST_DETECTIONS]
            boxes = labels[number, known[number] == name, 1:].astype(np.float64)
            scores.append(seen.scores[order])
            pictures.append(np.full(len(order), number))
            right.append(_match(_overlaps(seen.boxes[order], boxes), thresholds))
        joined = np.concatenate(scores)
        by_score = np.argsort(-joined, kind="stable")
        found.append(
            _Class(
                pictures=np.concatenate(pictures)[by_score],
                right=np.concatenate(right, axis=1)[:, by_score],
                truths=truths,
            )
        )
    return found


def measure_map(
    detections: Sequence[Detections], labels: np.ndarray
) -> tuple[ResampledMeasure, ResampledMeasure]:
    """Measure mAP at an overlap of 0.5, and the mean over 0.5, 0.55 and so on to 0.95.

    Args:
        detections: Of each picture.
        labels: ``[pictures, M, 5]``.

    Raises:
        DataError: The labels have another form, or hold no box.
    """
    import numpy as np

    if labels.ndim != 3 or labels.shape[2] != 5 or len(labels) != len(detections):
        raise DataError(
            f"cannot measure the mAP: labels are {list(labels.shape)} for {len(detections)} "
            "pictures (expected [pictures, M, 5]: class, x1, y1, x2, y2)",
            hint="pad pictures with fewer boxes by rows of class -1",
        )
    if not np.isfinite(labels).all():
        raise DataError("cannot measure the mAP: labels hold NaN or infinity")
    thresholds = np.linspace(0.5, 0.95, 10)
    classes = _classes(detections, labels, thresholds)
    if not classes:
        raise DataError(
            "cannot measure the mAP: the labels hold no box",
            hint="a row of labels is class, x1, y1, x2, y2 with a class from 0 on",
        )

    def mean(weights: np.ndarray, levels: int) -> float:
        found = [each.precision(weights) for each in classes]
        known = [each[:levels] for each in found if each is not None]
        return float(np.mean(known)) if known else float("nan")

    note = f"{len(classes)} classes" if len(classes) > 1 else "1 class"
    pictures = len(detections)
    return (
        ResampledMeasure(
            "map-50", "larger", lambda w: mean(w, 1), pictures, draws=_DRAWS, note=note
        ),
        ResampledMeasure(
            "map", "larger", lambda w: mean(w, 10), pictures, draws=_DRAWS, note=note
        ),
    )
