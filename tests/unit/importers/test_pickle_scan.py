"""What pickles name, read without running them."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import pickle  # noqa: TID251  (pickles are written here, and never loaded)
import time
import zlib
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgesdk.importers.frameworks.pickle_scan import globals_in_file, named_globals, unpacked

RAN: list[str] = []


def run_me(text: str) -> str:
    RAN.append(text)
    return text


class Bomb:
    """Unpickled, it would call `run_me`."""

    def __reduce__(self) -> tuple[Any, ...]:
        return run_me, ("boom",)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_what_a_pickle_would_call_is_named_and_not_called(protocol: int) -> None:
    data = pickle.dumps([1, 2.5, "words", b"bytes", Bomb(), OrderedDict(a=1)], protocol)
    names = named_globals(data)
    assert f"{__name__}.run_me" in names
    assert "collections.OrderedDict" in names
    assert RAN == []


def test_a_name_that_was_said_before_is_known_again() -> None:
    data = pickle.dumps([OrderedDict(), Bomb(), run_me, named_globals, unpacked], 4)
    assert named_globals(data) == (
        "collections.OrderedDict",
        f"{__name__}.run_me",
        "edgesdk.importers.frameworks.pickle_scan.named_globals",
        "edgesdk.importers.frameworks.pickle_scan.unpacked",
    )


@pytest.mark.parametrize(
    "press", [bytes, zlib.compress, gzip.compress, bz2.compress, lzma.compress]
)
def test_what_is_compressed_is_looked_into(press: Any, tmp_path: Path) -> None:
    path = tmp_path / "model.joblib"
    path.write_bytes(press(pickle.dumps(Bomb())))
    assert globals_in_file(path) == (f"{__name__}.run_me",)


@pytest.mark.parametrize("compress", [0, 3, ("gzip", 3), ("xz", 1)])
def test_arrays_between_frames_are_passed_over(compress: Any, tmp_path: Path) -> None:
    """joblib writes an array's bytes into the pickle; they may look like anything."""
    joblib = pytest.importorskip("joblib", reason="scikit-learn brings joblib")
    noise = np.random.default_rng(0).integers(0, 256, 200_000).astype(np.uint8)
    tempting = np.frombuffer(b"cos\nsystem\n\x8c\x02os\x8c\x06system\x93" * 500, np.uint8)
    path = tmp_path / "model.joblib"
    joblib.dump([noise, tempting, {"more": noise[::2]}, Bomb()], path, compress=compress)
    names = globals_in_file(path)
    assert names[0] == "joblib.numpy_pickle.NumpyArrayWrapper"
    assert names[-1] == f"{__name__}.run_me"
    assert set(names) <= {
        "joblib.numpy_pickle.NumpyArrayWrapper",
        "numpy.ndarray",
        "numpy.dtype",
        f"{__name__}.run_me",
    }


def test_a_file_that_unpacks_to_more_is_looked_at_in_part() -> None:
    packed = io.BytesIO()
    with gzip.GzipFile(fileobj=packed, mode="wb", compresslevel=9) as stream:
        for _ in range(80):
            stream.write(bytes(1 << 20))
    assert len(unpacked(packed.getvalue())) == 1 << 26


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=400), st.integers(0, 400))
def test_any_bytes_end(noise: bytes, cut: int) -> None:
    whole = pickle.dumps([Bomb(), "text" * 9, {1: b"bytes"}])
    for data in (noise, whole[:cut] + noise, b"\x80\x04\x95" + noise):
        assert all("." in name for name in named_globals(data))


def test_a_long_file_of_opcodes_is_not_read_for_ever() -> None:
    started = time.perf_counter()
    assert named_globals(b"\x80\x04" + b"\x95\x01" * (1 << 21)) == ()
    assert named_globals(b"N0" * (1 << 21)) == ()
    assert time.perf_counter() - started < 15
