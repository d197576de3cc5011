"""Opening data: what each kind of source gives, and what it says when it does not fit."""

from __future__ import annotations

import hashlib
import sys
import textwrap

import numpy as np
import pytest

from edgesdk.data import Preprocess, open_dataset
from edgesdk.errors import DataError
from edgesdk.tensors import TensorInfo

IMAGE = TensorInfo(name="image", dtype="float32", shape=("N", 1, 4, 4))
RNG = np.random.default_rng(5)
ROWS = RNG.random((6, 1, 4, 4), dtype=np.float32)


def info(name: str, shape: tuple[int | str | None, ...], dtype: str = "float32") -> TensorInfo:
    return TensorInfo(name=name, dtype=dtype, shape=shape)


@pytest.fixture
def save(tmp_path):
    def save(name: str = "data.npz", **arrays: np.ndarray):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        np.savez_compressed(path, **arrays)
        return path

    return save


def refused(*args: object, **options: object) -> DataError:
    with pytest.raises(DataError) as caught:
        open_dataset(*args, **options)
    assert caught.value.exit_code == 2
    return caught.value


def test_an_npz_gives_one_row_at_a_time_ready_to_feed(save):
    data = open_dataset(save(image=ROWS, labels=np.arange(6)), [IMAGE])
    samples = list(data.samples())
    assert (data.count, data.batch, data.findings) == (6, 1, ())
    assert all(sample["image"].shape == (1, 1, 4, 4) for sample in samples)
    np.testing.assert_array_equal(np.concatenate([s["image"] for s in samples]), ROWS)
    np.testing.assert_array_equal(data.labels, np.arange(6))


def test_samples_can_be_read_again_from_the_start(save):
    data = open_dataset(save(image=ROWS), [IMAGE])
    first = next(data.samples())["image"]
    np.testing.assert_array_equal(next(data.samples())["image"], first)
    assert data.labels is None


def test_a_limit_cuts_samples_and_labels_alike(save):
    data = open_dataset(save(image=ROWS, labels=np.arange(6)), [IMAGE], limit=4)
    assert data.count == len(list(data.samples())) == 4
    np.testing.assert_array_equal(data.labels, [0, 1, 2, 3])


def test_a_fixed_batch_is_filled_and_what_is_left_over_is_said(save):
    path = save(image=ROWS, labels=np.arange(6))
    data = open_dataset(path, [info("image", (4, 1, 4, 4))])
    assert [sample["image"].shape for sample in data.samples()] == [(4, 1, 4, 4)]
    assert (data.count, data.batch) == (1, 4)
    np.testing.assert_array_equal(data.labels, [0, 1, 2, 3])
    assert data.findings[0].code == "left-over-samples"
    assert "the last 2 samples of data.npz are not used" in data.findings[0].message


def test_what_is_left_over_in_files_after_the_first_is_said(save):
    save("b/1.npz", image=ROWS[:4])
    save("b/2.npz", image=ROWS)
    folder = save("b/3.npz", image=ROWS[:5]).parent
    batches = [info("image", (4, 1, 4, 4))]
    (finding,) = open_dataset(folder, batches).findings
    assert finding.message == (
        "3 samples at the ends of 2 files (2.npz, ...) are not used: the model takes 4 "
        "at a time"
    )
    (finding,) = open_dataset(folder, batches, limit=8).findings
    assert "the last 2 samples of 2.npz are not used" in finding.message


def test_an_array_with_one_dimension_more_holds_whole_inputs(save):
    inputs = [info("x", (1, 3)), info("state", (2, 1, 5)), info("rate", (), "int64")]
    path = save(
        x=np.zeros((4, 3), "f4"), state=np.ones((4, 2, 1, 5), "f4"), rate=np.full(4, 16_000)
    )
    sample = next(open_dataset(path, inputs).samples())
    assert {name: array.shape for name, array in sample.items()} == {
        "x": (1, 3),
        "state": (2, 1, 5),
        "rate": (),
    }
    assert sample["rate"].dtype == np.int64


def test_half_precision_widens_exactly(save):
    halves = ROWS.astype(np.float16)
    sample = next(open_dataset(save(image=halves), [IMAGE]).samples())["image"]
    assert sample.dtype == np.float32
    np.testing.assert_array_equal(sample, halves[:1].astype(np.float32))


def test_arrays_in_fortran_order_and_big_endian_read_the_same(save):
    turned = np.asfortranarray(ROWS.astype(">f4"))
    data = open_dataset(save(image=turned), [IMAGE])
    np.testing.assert_array_equal(
        np.concatenate([sample["image"] for sample in data.samples()]), ROWS
    )


def test_symbolic_and_unknown_extents_fit_anything(save):
    path = save(text=np.ones((2, 7), np.int64))
    sample = next(open_dataset(path, [info("text", ("N", None), "int64")]).samples())
    assert sample["text"].shape == (1, 7)


def test_the_only_array_is_taken_for_the_only_input(save):
    data = open_dataset(save(x_test=ROWS, labels=np.zeros(6, int)), [IMAGE])
    assert data.findings[0].code == "array-name"
    assert "'x_test' is taken for the model's only input, 'image'" in data.findings[0].message


def test_whole_numbers_for_fractions_are_passed_on_and_said(save):
    data = open_dataset(save(image=np.ones((3, 1, 4, 4), np.uint8)), [IMAGE])
    assert data.findings[0].code == "whole-number-data"
    assert "without scaling" in data.findings[0].message
    assert next(data.samples())["image"].dtype == np.float32


def test_arrays_of_no_input_are_said(save):
    data = open_dataset(save(image=ROWS, names=ROWS), [IMAGE])
    assert [finding.subject for finding in data.findings] == ["names"]


def test_python_objects_are_refused_where_they_are_needed_and_else_left_alone(save):
    objects = np.array([None] * 6, dtype=object)
    assert open_dataset(save(image=ROWS, notes=objects), [IMAGE]).count == 6
    for arrays in ({"image": objects}, {"image": ROWS, "labels": objects}):
        error = refused(save(**arrays), [IMAGE])
        assert "it holds Python objects (expected numbers)" in str(error)
        assert "to load objects runs code" in error.hint


def test_an_input_called_labels_is_an_input(save):
    path = save(labels=np.ones((3, 2), "f4"))
    data = open_dataset(path, [info("labels", ("N", 2))])
    assert data.labels is None
    assert next(data.samples())["labels"].shape == (1, 2)


def test_a_column_of_labels_is_a_list_of_labels(save):
    data = open_dataset(save(image=ROWS, labels=np.arange(6)[:, np.newaxis]), [IMAGE])
    assert data.labels is not None
    assert data.labels.shape == (6,)


@pytest.mark.parametrize(
    ("arrays", "text", "hint"),
    [
        (
            {"images": ROWS, "other": ROWS},
            "no array 'image' (it has 'images', 'other'; the model's inputs are 'image')",
            "rename 'images' to 'image'",
        ),
        (
            {"image": ROWS.transpose(0, 2, 3, 1)},
            "it has the shape [6, 4, 4, 1] and input 'image' is [N, 1, 4, 4]",
            "np.transpose(array, (0, 3, 1, 2))",
        ),
        (
            {"image": ROWS[:, 0]},
            "it has the shape [6, 4, 4] and input 'image' is [N, 1, 4, 4]",
            "np.expand_dims(array, 1)",
        ),
        (
            {"image": np.ones((6, 1, 5, 4), "f4")},
            "it has the shape [6, 1, 5, 4]",
            "must be the input's shape",
        ),
        (
            {"image": ROWS.astype("f8")},
            "it is float64 and the model takes float32 (the cast could lose values)",
            ".astype(np.float32)",
        ),
        (
            {"image": np.full((2, 1, 4, 4), "a")},
            "it is <U1 and the model takes float32",
            "numbers",
        ),
        ({"image": ROWS[:0]}, "it holds no sample ([0, 1, 4, 4])", ""),
        (
            {"image": ROWS, "labels": np.arange(5)},
            "there are [5] of them and 6 samples",
            "one label per sample",
        ),
        (
            {"image": ROWS, "labels": np.array(list("abcdef"))},
            "they are <U1 (expected numbers)",
            "np.unique",
        ),
    ],
)
def test_data_that_does_not_fit_is_refused_when_it_is_opened(save, arrays, text, hint):
    error = refused(save(**arrays), [IMAGE])
    assert text in str(error)
    assert hint in error.hint


def test_arrays_of_different_length_are_refused(save):
    path = save(a=np.ones((3, 2), "f4"), b=np.ones((4, 2), "f4"))
    error = refused(path, [info("a", ("N", 2)), info("b", ("N", 2))])
    assert "arrays differ in number of samples: 'a' 3, 'b' 4" in str(error)


def test_too_few_rows_for_a_fixed_batch_are_refused(save):
    error = refused(save(image=ROWS), [info("image", (8, 1, 4, 4))])
    assert "it has 6 rows and the model takes 8 at a time" in str(error)


def test_values_that_are_not_numbers_are_refused_when_they_are_read(save):
    rows = ROWS.copy()
    rows[2, 0, 0, :2] = np.nan
    data = open_dataset(save(image=rows), [IMAGE])
    with pytest.raises(DataError, match=r"2 of its 16 values are not a number \(NaN\)"):
        list(data.samples())


def test_inputs_that_take_strings_are_refused(save):
    error = refused(save(text=np.ones(2)), [info("text", ("N",), "string")])
    assert "cannot feed input 'text': it takes strings" in str(error)


def test_more_bytes_than_allowed_are_refused_before_any_is_read(save):
    error = refused(save(image=ROWS), [IMAGE], max_bytes=200)
    assert "it declares 384 bytes of samples (at most 200)" in str(error)
    assert open_dataset(save(image=ROWS), [IMAGE], limit=3, max_bytes=200).count == 3


def test_nothing_there_is_said_with_what_can_be_given(tmp_path):
    error = refused(tmp_path / "none.npz", [IMAGE])
    assert str(error).endswith("none.npz: there is no such file or folder")
    assert "module:function" in error.hint
    assert "it has no inputs" in str(refused(tmp_path, []))
    assert "cannot read 0 samples" in str(refused(tmp_path, [IMAGE], limit=0))


def test_an_empty_folder_is_said(tmp_path):
    block = Preprocess(color="gray", resize=(4, 4))
    error = refused(tmp_path, [IMAGE], preprocess=block)
    assert "there is no .npz and no picture in it" in str(error)


def test_a_folder_of_npz_is_read_in_the_order_of_names(save):
    save("b/2.npz", image=ROWS[4:], labels=np.array([4, 5]))
    folder = save("b/1.npz", image=ROWS[:4], labels=np.arange(4)).parent
    data = open_dataset(folder, [IMAGE])
    assert data.count == 6
    np.testing.assert_array_equal(data.labels, np.arange(6))
    np.testing.assert_array_equal(
        np.concatenate([sample["image"] for sample in data.samples()]), ROWS
    )
    limited = open_dataset(folder, [IMAGE], limit=5)
    assert limited.count == len(list(limited.samples())) == 5
    np.testing.assert_array_equal(limited.labels, np.arange(5))


def test_a_folder_where_only_some_files_have_labels_is_refused(save):
    save("b/1.npz", image=ROWS)
    folder = save("b/2.npz", image=ROWS, labels=np.arange(6)).parent
    assert "some files have labels and others do not" in str(refused(folder, [IMAGE]))


def test_files_that_hold_batches_in_two_ways_are_refused_as_that(save):
    save("b/1.npz", image=ROWS[:4])
    folder = save("b/2.npz", image=ROWS[None, :4]).parent
    problem = refused(folder, [info("image", (4, 1, 4, 4))])
    assert "a sample is 4 rows of labels in 1.npz and 1 in 2.npz" in str(problem)
    assert problem.hint.startswith("save every file alike")


def test_the_digest_is_of_what_the_model_gets_not_of_the_file(save, tmp_path):
    packed = open_dataset(save(image=ROWS, labels=np.arange(6)), [IMAGE]).digest
    np.savez(tmp_path / "plain.npz", image=ROWS)
    assert open_dataset(tmp_path / "plain.npz", [IMAGE]).digest == packed
    other = ROWS.copy()
    other[5, 0, 3, 3] += 1
    assert open_dataset(save(image=other), [IMAGE]).digest != packed
    assert open_dataset(save(image=ROWS), [IMAGE], limit=5).digest != packed


def test_the_digest_follows_its_published_form(save):
    data = open_dataset(save(image=ROWS[:1]), [IMAGE])
    wanted = b'["image", "float32", [1, 1, 4, 4]]\n' + ROWS[:1].tobytes()
    assert data.digest == hashlib.sha256(wanted).hexdigest()


@pytest.fixture
def module(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def write(name: str, text: str) -> None:
        (tmp_path / f"{name}.py").write_text(textwrap.dedent(text))
        monkeypatch.delitem(sys.modules, name, raising=False)

    return write


def test_a_function_of_the_current_folder_yields_samples_and_labels(module):
    module(
        "my_feed",
        """
        import numpy as np
        def feed():
            for number in range(3):
                yield {"image": np.full((1, 4, 4), number, "f4"), "labels": number}
        """,
    )
    path_before = list(sys.path)
    data = open_dataset("my_feed:feed", [IMAGE])
    assert data.count is None
    np.testing.assert_array_equal(data.labels, [0, 1, 2])
    assert data.count == 3
    assert [sample["image"].shape for sample in data.samples()] == [(1, 1, 4, 4)] * 3
    assert sys.path == path_before
    limited = open_dataset("my_feed:feed", [IMAGE], limit=2)
    assert len(list(limited.samples())) == 2


def test_a_function_that_fails_is_reported_with_the_sample(module):
    module(
        "my_broken",
        """
        import numpy as np
        def feed():
            yield {"image": np.zeros((1, 4, 4), "f4")}
            yield {}["gone"]
        def lists():
            yield [1]
        def nothing():
            return []
        """,
    )
    data = open_dataset("my_broken:feed", [IMAGE])
    with pytest.raises(DataError, match="my_broken:feed, sample 1: KeyError: 'gone'"):
        list(data.samples())
    assert "sample 0 is a list" in str(refused("my_broken:lists", [IMAGE]))
    assert "it yields no sample" in str(refused("my_broken:nothing", [IMAGE]))
    error = refused("my_broken:fed", [IMAGE])
    assert "module 'my_broken' has no function 'fed'" in str(error)
    assert "feed, lists, nothing" in error.hint


def test_a_module_that_is_not_there_is_said(module):
    error = refused("my_absent:feed", [IMAGE])
    assert "cannot read data from my_absent:feed: No module named 'my_absent'" in str(error)
    assert "current folder" in error.hint
