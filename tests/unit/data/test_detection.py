"""Mean average precision is COCO's own, down to the last digit."""

from __future__ import annotations

import numpy as np
import pytest

from edgesdk.data.detection import Detections, find_roles, measure_map, read_detections
from edgesdk.errors import DataError

BOX = np.array([[0.0, 0, 10, 10]])


def scene(
    seed: int, pictures: int = 40, classes: int = 3, *, ties: bool = False
) -> tuple[list[Detections], np.ndarray]:
    """Boxes, and detections that are near them, far from them or of the wrong class."""
    dice = np.random.default_rng(seed)
    labels = np.full((pictures, 6, 5), -1.0)
    found = []
    for i in range(pictures):
        there = dice.integers(0, 7)
        for j in range(there):
            x, y = dice.uniform(0, 80, 2)
            w, h = dice.uniform(5, 40, 2)
            labels[i, j] = [dice.integers(0, classes), x, y, x + w, y + h]
        count = dice.integers(0, 12)
        boxes = np.zeros((count, 4))
        scores = dice.uniform(0, 1, count)
        names = dice.integers(0, classes, count)
        scores = scores.round(1) if ties else scores
        for q in range(count):
            if there and dice.random() < 0.7:
                truth = labels[i, dice.integers(0, there)]
                boxes[q] = truth[1:] + dice.normal(0, dice.choice([0.5, 3, 8]), 4)
                names[q] = truth[0] if dice.random() < 0.9 else names[q]
            else:
                x, y = dice.uniform(0, 80, 2)
                boxes[q] = [x, y, x + dice.uniform(5, 40), y + dice.uniform(5, 40)]
        boxes[:, 2:] = np.maximum(boxes[:, 2:], boxes[:, :2] + 1)
        found.append(Detections(boxes=boxes, scores=scores, classes=names.astype(int)))
    return found, labels


#: What pycocotools 2.0 gave for the same scenes: at 0.5, and over 0.5 to 0.95.
COCO = {
    0: (0.1828528754907979, 0.09876427771165207),
    1: (0.09176906514307907, 0.04432847828384531),
    2: (0.20569018592070704, 0.11486180115505103),
    3: (0.18472158053520665, 0.11238699317418231),
}


@pytest.mark.parametrize("seed", COCO)
def test_values_are_those_of_the_coco_tools(seed: int) -> None:
    at_half, over_all = measure_map(*scene(seed, ties=seed % 2 == 1))
    assert (at_half.value, over_all.value) == pytest.approx(COCO[seed], abs=1e-12)


def test_whole_resample_of_pictures_is_measured_as_those_pictures() -> None:
    detections, labels = scene(3, pictures=12)
    at_half, _ = measure_map(detections, labels)
    weights = np.array([0, 2, 1, 1, 0, 3, 0, 1, 1, 1, 2, 0])
    chosen = np.repeat(np.arange(12), weights)
    again, _ = measure_map([detections[i] for i in chosen], labels[chosen])
    assert at_half._statistic(weights) == pytest.approx(again.value, abs=1e-12)


def test_perfect_detector_has_one_and_no_interval() -> None:
    labels = np.tile([[[2.0, 0, 0, 10, 10]]], (20, 1, 1))
    found = Detections(boxes=BOX, scores=np.array([0.9]), classes=np.array([2]))
    for measure in measure_map([found] * 20, labels):
        assert measure.value == pytest.approx(1.0)
        interval = measure.interval()
        assert (interval.lower, interval.upper) == (None, None)
        assert interval.method.endswith("draws: no variance seen")


def test_detector_that_finds_nothing_has_zero() -> None:
    labels = np.tile([[[0.0, 0, 0, 10, 10]]], (5, 1, 1))
    nothing = Detections(boxes=np.zeros((0, 4)), scores=np.zeros(0), classes=np.zeros(0, int))
    assert [m.value for m in measure_map([nothing] * 5, labels)] == [0.0, 0.0]


def outputs(**changed: np.ndarray) -> dict[str, list[np.ndarray]]:
    given = {
        "detection_boxes": np.zeros((1, 3, 4), np.float32),
        "detection_scores": np.ones((1, 3), np.float32),
        "detection_classes": np.zeros((1, 3), np.float32),
        "num_detections": np.array([2.0], np.float32),
    }
    return {name: [array] for name, array in {**given, **changed}.items()}


def test_outputs_are_known_by_their_names() -> None:
    given = outputs()
    roles = find_roles(list(given), {})
    assert roles == {
        "boxes": "detection_boxes",
        "scores": "detection_scores",
        "classes": "detection_classes",
        "count": "num_detections",
    }
    (found,) = read_detections(given, roles)
    assert (len(found.boxes), found.classes.tolist()) == (2, [0, 0])


def test_names_that_do_not_tell_are_given_by_the_user() -> None:
    roles = find_roles(["a", "b", "c"], {"boxes": "a", "scores": "b", "classes": "c"})
    assert roles == {"boxes": "a", "scores": "b", "classes": "c"}
    with pytest.raises(DataError, match="no output is called like boxes or scores or classes"):
        find_roles(["a", "b", "c"], {})
    with pytest.raises(DataError, match="there is no output 'z'"):
        find_roles(["a"], {"boxes": "z"})
    with pytest.raises(DataError, match="there is no role 'box'"):
        find_roles(["a"], {"box": "a"})


def test_sample_of_several_pictures_is_taken_apart() -> None:
    batch = {
        "boxes": [np.arange(16, dtype=np.float32).reshape(2, 2, 4)],
        "scores": [np.ones((2, 2), np.float32)],
        "classes": [np.array([[0, 1], [2, 3]], np.int64)],
    }
    found = read_detections(batch, find_roles(list(batch), {}), batch=2)
    assert [each.classes.tolist() for each in found] == [[0, 1], [2, 3]]


@pytest.mark.parametrize(
    ("changed", "text"),
    [
        ({"detection_boxes": np.zeros((1, 3, 5))}, r"boxes \[3, 5\]"),
        ({"detection_scores": np.ones((1, 2))}, r"scores \[2\]"),
        ({"detection_scores": np.ones(())}, r"scores of picture 0 are \[\]"),
        ({"detection_boxes": np.full((1, 3, 4), np.nan)}, "boxes of picture 0 hold NaN"),
        ({"num_detections": np.array([np.nan])}, "the count of picture 0 is"),
    ],
)
def test_outputs_of_another_form_are_refused(changed: dict[str, np.ndarray], text: str) -> None:
    given = outputs(**changed)
    with pytest.raises(DataError, match=text):
        read_detections(given, find_roles(list(given), {}))


@pytest.mark.parametrize(
    ("labels", "text"),
    [
        (np.zeros((1, 2, 4)), "expected .pictures, M, 5"),
        (np.zeros((2, 2, 5)), "for 1 pictures"),
        (np.full((1, 2, 5), -1.0), "the labels hold no box"),
        (np.full((1, 2, 5), np.nan), "labels hold NaN"),
    ],
)
def test_labels_of_another_form_are_refused(labels: np.ndarray, text: str) -> None:
    found = Detections(boxes=BOX, scores=np.ones(1), classes=np.zeros(1, int))
    with pytest.raises(DataError, match=text):
        measure_map([found], labels)
