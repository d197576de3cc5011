"""Folders of pictures: order, labels, and pictures that are none."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from edgesdk.data import Preprocess, open_dataset
from edgesdk.data import pictures as pictures_module
from edgesdk.errors import DataError
from edgesdk.tensors import TensorInfo

IMAGE = TensorInfo(name="x", dtype="float32", shape=("N", 3, 4, 4))
BLOCK = Preprocess(resize=(4, 4), scale=1.0)


@pytest.fixture
def draw(tmp_path):
    def draw(name: str, level: int, size: tuple[int, int] = (4, 4)) -> None:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", size, (level, level, level)).save(path)

    return draw


def levels(data) -> list[int]:
    return [int(sample["x"][0, 0, 0, 0]) for sample in data.samples()]


def refused(*args: object, **options: object) -> DataError:
    with pytest.raises(DataError) as caught:
        list(open_dataset(*args, **options).samples())
    return caught.value


def test_classes_take_turns_so_that_a_limit_keeps_all_of_them(tmp_path, draw):
    for number, name in enumerate(["ant", "bee", "cat"]):
        for picture in range(3):
            draw(f"{name}/{picture}.png", 10 * number + picture)
    data = open_dataset(tmp_path, [IMAGE], preprocess=BLOCK, limit=4)
    assert levels(data) == [0, 10, 20, 1]
    assert data.labels.tolist() == [0, 1, 2, 0]
    assert data.class_names == ("ant", "bee", "cat")


def test_subfolders_called_by_number_keep_their_numbers(tmp_path, draw):
    for name in ("2", "10"):
        draw(f"{name}/a.png", int(name))
    data = open_dataset(tmp_path, [IMAGE], preprocess=BLOCK)
    assert data.labels.tolist() == levels(data)
    assert data.class_names == ()


def test_a_flat_folder_has_no_labels_without_a_label_file(tmp_path, draw):
    draw("b.png", 2)
    draw("a.bmp", 1)
    (tmp_path / "notes.md").write_text("not a picture")
    data = open_dataset(tmp_path, [IMAGE], preprocess=BLOCK)
    assert (levels(data), data.labels) == ([1, 2], None)


@pytest.mark.parametrize(
    ("name", "text"),
    [("labels.csv", "a b.png,dog\nc.png,cat\n"), ("labels.txt", "a b.png dog\n\nc.png cat\n")],
)
def test_a_label_file_names_each_picture(tmp_path, draw, name, text):
    draw("a b.png", 1)
    draw("c.png", 2)
    (tmp_path / name).write_text(text)
    data = open_dataset(tmp_path, [IMAGE], preprocess=BLOCK)
    assert data.labels.tolist() == [1, 0]
    assert data.class_names == ("cat", "dog")


def test_a_picture_without_a_label_is_named(tmp_path, draw):
    draw("a.png", 1)
    draw("b.png", 1)
    (tmp_path / "labels.csv").write_text("a.png,0\n")
    error = refused(tmp_path, [IMAGE], preprocess=BLOCK)
    assert "1 of 2 pictures have none, 'b.png' first" in str(error)
    (tmp_path / "labels.csv").write_text("a.png\n")
    error = refused(tmp_path, [IMAGE], preprocess=BLOCK)
    assert "entry 1 has 1 field(s) (expected a file name and a label)" in str(error)


def test_pictures_fill_a_fixed_batch(tmp_path, draw):
    for number in range(5):
        draw(f"{number}.png", number)
    fixed = TensorInfo(name="x", dtype="float32", shape=(2, 3, 4, 4))
    data = open_dataset(tmp_path, [fixed], preprocess=BLOCK)
    assert [sample["x"].shape[0] for sample in data.samples()] == [2, 2]
    assert data.findings[0].message.startswith("the last 1 pictures are not used")


def test_pictures_need_a_preprocess_block_that_fits(tmp_path, draw):
    draw("a.png", 1)
    error = refused(tmp_path, [IMAGE])
    assert "the recipe has no preprocess block" in str(error)
    assert "preprocess: {resize: [224, 224]" in error.hint
    error = refused(tmp_path, [IMAGE], preprocess=Preprocess(resize=(8, 8)))
    assert "it makes [3, 8, 8] and the input is x: float32[N, 3, 4, 4]" in str(error)
    error = refused(tmp_path, [IMAGE, IMAGE], preprocess=BLOCK)
    assert "the model has 2 inputs" in str(error)


def test_one_picture_is_not_a_folder_of_them(tmp_path, draw):
    draw("a.png", 1)
    error = refused(tmp_path / "a.png", [IMAGE], preprocess=BLOCK)
    assert "it is one picture (a folder expected)" in str(error)


def test_pictures_beside_and_in_subfolders_are_ambiguous(tmp_path, draw):
    draw("a.png", 1)
    draw("cat/a.png", 1)
    error = refused(tmp_path, [IMAGE], preprocess=BLOCK)
    assert "it has pictures beside and in its subfolders" in str(error)


def test_a_file_that_is_no_picture_is_named(tmp_path, draw):
    draw("a.png", 1)
    (tmp_path / "b.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n")
    error = refused(tmp_path, [IMAGE], preprocess=BLOCK)
    assert "b.png: not one of BMP, GIF, JPEG, PNG, PPM, TIFF, WEBP" in str(error)


def test_a_truncated_picture_is_named(tmp_path, draw):
    draw("a.png", 1, (64, 64))
    data = (tmp_path / "a.png").read_bytes()
    (tmp_path / "a.png").write_bytes(data[:60])
    assert "cannot read picture" in str(refused(tmp_path, [IMAGE], preprocess=BLOCK))


def test_a_picture_with_too_many_pixels_is_refused_by_its_header(tmp_path, draw, monkeypatch):
    draw("a.png", 1, (64, 64))
    monkeypatch.setattr(pictures_module, "_MAX_PIXELS", 4000)
    error = refused(tmp_path, [IMAGE], preprocess=BLOCK)
    assert "it has 64 x 64 pixels (at most 4000 in all)" in str(error)


def test_what_preprocessing_refuses_names_the_picture(tmp_path, draw):
    draw("a.png", 1, (2, 2))
    error = refused(tmp_path, [IMAGE], preprocess=Preprocess(crop=(4, 4)))
    assert str(error).endswith(f"in {tmp_path / 'a.png'}")
    assert error.hint == "add resize to the preprocess block"


def test_pictures_of_different_sizes_do_not_go_into_one_batch(tmp_path, draw):
    draw("a.png", 1, (4, 4))
    draw("b.png", 1, (5, 4))
    free = TensorInfo(name="x", dtype="float32", shape=(2, 3, None, None))
    error = refused(tmp_path, [free], preprocess=Preprocess())
    assert "cannot put 2 pictures into one batch: their sizes differ" in str(error)


def test_the_samples_are_what_the_block_makes(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (9, 7, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    sample = next(open_dataset(tmp_path, [IMAGE], preprocess=BLOCK).samples())["x"]
    np.testing.assert_array_equal(sample[0], BLOCK.apply(pixels))
