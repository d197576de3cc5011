"""Reading `.npz`: a damaged or lying file ends in a DataError, and nothing large is read."""

from __future__ import annotations

import io
import struct
import zipfile

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgesdk.data import open_dataset
from edgesdk.data.npz import list_arrays, read_array, read_rows
from edgesdk.errors import DataError
from edgesdk.tensors import TensorInfo

ROWS = np.arange(24, dtype=np.float32).reshape(6, 4)


def packed(**arrays: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    return buffer.getvalue()


def member(header: str, body: bytes, *, version: tuple[int, int] = (1, 0)) -> bytes:
    text = header.encode("latin1").ljust(117) + b"\n"
    return b"\x93NUMPY" + bytes(version) + struct.pack("<H", len(text)) + text + body


def archive(tmp_path, **members: bytes):
    path = tmp_path / "made.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as made:
        for name, data in members.items():
            made.writestr(f"{name}.npy", data)
    return path


def test_headers_are_read_without_the_arrays(tmp_path):
    path = tmp_path / "a.npz"
    path.write_bytes(packed(a=ROWS, b=np.zeros(3, np.int8)))
    arrays = list_arrays(path)
    assert {name: str(array) for name, array in arrays.items()} == {
        "a": "a: float32[6, 4]",
        "b": "b: int8[3]",
    }


def test_rows_come_in_groups_and_arrays_whole(tmp_path):
    path = tmp_path / "a.npz"
    path.write_bytes(packed(a=ROWS))
    array = list_arrays(path)["a"]
    groups = [taken[0] for taken in read_rows(path, [array], [2], groups=3)]
    np.testing.assert_array_equal(np.concatenate(groups), ROWS)
    np.testing.assert_array_equal(read_array(path, array, max_bytes=1000), ROWS)
    with pytest.raises(DataError, match=r"it has 96 bytes \(at most 95\)"):
        read_array(path, array, max_bytes=95)


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"", "the file is empty"),
        (b"hello world", "it is not an .npz: it begins with b'hello '"),
        (b"\x93NUMPY\x01\x00", "it is a single array (.npy), not an .npz"),
        (packed(a=ROWS)[:-30], "the archive is damaged"),
    ],
)
def test_a_file_that_is_no_npz_is_named_for_what_it_is(tmp_path, data, text):
    path = tmp_path / "a.npz"
    path.write_bytes(data)
    with pytest.raises(DataError) as caught:
        list_arrays(path)
    assert text in str(caught.value)
    assert "np.savez_compressed" in caught.value.hint


def test_python_objects_are_never_loaded(tmp_path):
    path = tmp_path / "a.npz"
    np.savez(path, a=np.array([{}, []], dtype=object))
    array = list_arrays(path)["a"]
    with pytest.raises(DataError, match=r"it holds Python objects \(expected numbers\)"):
        read_array(path, array, max_bytes=1000)
    with pytest.raises(DataError, match="it holds Python objects"):
        next(read_rows(path, [array], [1], groups=1))


def test_a_header_that_claims_more_than_the_archive_holds_is_refused(tmp_path):
    lie = "{'descr': '<f4', 'fortran_order': False, 'shape': (1000000000000, 4), }"
    path = archive(tmp_path, a=member(lie, bytes(64)))
    with pytest.raises(DataError, match="needs 16000000000000 bytes and the file has 64"):
        list_arrays(path)


@pytest.mark.parametrize(
    "header",
    [
        "{'descr': '<f4', 'fortran_order': False, 'shape': (-1, 4), }",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (True, 4), }",
        "{'descr': '<f4', 'fortran_order': False}",
        "{'descr': __import__('os'), 'fortran_order': False, 'shape': (1,)}",
        "(" * 110,
        "\x00\xff",
    ],
)
def test_a_damaged_header_is_refused(tmp_path, header):
    path = archive(tmp_path, a=member(header, bytes(16)))
    with pytest.raises(DataError, match="its header is damaged"):
        list_arrays(path)


def test_a_bomb_is_only_unpacked_as_far_as_it_is_read(tmp_path):
    rows = 1 << 14
    header = f"{{'descr': '|u1', 'fortran_order': False, 'shape': ({rows}, 4096), }}"
    path = archive(tmp_path, image=member(header, bytes(rows * 4096)))
    assert path.stat().st_size < 200_000
    image = TensorInfo(name="image", dtype="uint8", shape=("N", 4096))
    data = open_dataset(path, [image], limit=2, max_bytes=10_000)
    assert len(list(data.samples())) == 2
    with pytest.raises(DataError, match="it declares 67108864 bytes of samples"):
        open_dataset(path, [image], max_bytes=10_000)


def test_two_arrays_of_one_name_are_refused(tmp_path):
    path = tmp_path / "a.npz"
    data = member("{'descr': '|u1', 'fortran_order': False, 'shape': (1,), }", b"x")
    with zipfile.ZipFile(path, "w") as made:
        made.writestr("a.npy", data)
        with pytest.warns(UserWarning, match="Duplicate"):
            made.writestr("a.npy", data)
    with pytest.raises(DataError, match="it has two arrays 'a'"):
        list_arrays(path)


WHOLE = packed(image=ROWS, labels=np.arange(6))


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, len(WHOLE) - 1), st.integers(0, 255)), max_size=8),
    st.integers(0, len(WHOLE)),
)
def test_any_damage_ends_in_data_or_a_data_error(tmp_path_factory, changes, length):
    data = bytearray(WHOLE)
    for place, value in changes:
        data[place] = value
    path = tmp_path_factory.getbasetemp() / "damaged.npz"
    path.write_bytes(data[:length] if length % 3 == 0 else data)
    image = TensorInfo(name="image", dtype="float32", shape=("N", 4))
    try:
        dataset = open_dataset(path, [image])
        samples = list(dataset.samples())
        labels = dataset.labels
    except DataError:
        return
    assert len(samples) == dataset.count
    assert labels is None or len(labels) == dataset.count
