"""Which names a pickle would import, read without importing them."""

from __future__ import annotations

import io
import pickle  # noqa: TID251  # these tests write pickles; none is loaded
from collections import OrderedDict
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgesdk.importers.pickle_scan import COMPUTED_NAME, scan_pickle


class _Runs:
    """Would make a file when loaded."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[Path]]:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("protocol", range(6))
def test_every_protocol_gives_up_its_names(protocol: int) -> None:
    data = pickle.dumps([OrderedDict(a=1), Fraction(1, 3), Fraction(2, 3)], protocol)
    names = scan_pickle(data)
    assert not names.problem
    assert {"collections.OrderedDict", "fractions.Fraction"} <= set(names.names)
    assert COMPUTED_NAME not in names.names


@pytest.mark.parametrize("protocol", range(6))
def test_plain_values_name_nothing(protocol: int) -> None:
    value = {"a": [1, 2.5, None, True, "text", 1 << 70], "b": (b"", "x" * 1000, -5)}
    names = scan_pickle(pickle.dumps(value, protocol))
    assert not names.problem
    # how bytes are written before protocol 3
    assert set(names.names) <= {"_codecs.encode", "__builtin__.bytes"}


def test_nothing_is_run(tmp_path: Path) -> None:
    trap = tmp_path / "was-run"
    names = scan_pickle(pickle.dumps(_Runs(trap)))
    assert any("touch" in name or "getattr" in name for name in names.names)
    assert not trap.exists()


def test_a_name_put_together_while_loading_is_called_that() -> None:
    # module and name come from the memo after the stack was moved in ways nobody follows
    moved = b"\x80\x04\x8c\x02os\x94\x8c\x06system\x94\x300\x93."
    assert COMPUTED_NAME in scan_pickle(moved).names
    escaped = b"S'o\\x73'\nS'system'\n\x93."
    assert scan_pickle(escaped).names == (COMPUTED_NAME,)


def test_names_through_the_memo_are_found() -> None:
    data = b"\x80\x04\x8c\x02os\x94\x8c\x06system\x94" + b"h\x00h\x01\x93."
    assert scan_pickle(data).names == ("os.system",)


def test_an_extension_is_a_name() -> None:
    assert scan_pickle(b"\x80\x02\x82\x07.").names == ("copyreg extension.7",)


def test_pickles_in_a_row_are_all_read() -> None:
    data = pickle.dumps(1, 2) + pickle.dumps(OrderedDict(), 2) + b"\0" * 100
    assert scan_pickle(data).names == ()
    assert scan_pickle(data, pickles=5).names == ("collections.OrderedDict",)


@pytest.mark.parametrize("cut", [0, 1, 5, 20])
def test_a_cut_pickle_says_so(cut: int) -> None:
    data = pickle.dumps({"a": OrderedDict(b=[1] * 50)}, 2)[:cut]
    assert scan_pickle(data).problem == "it ends in the middle"


def test_what_is_no_pickle_says_where() -> None:
    assert scan_pickle(b"\x80\x02\xff").problem == "byte 2 is no opcode (0xff)"


def test_a_bomb_is_neither_read_nor_built() -> None:
    huge = b"\x80\x04\x8e" + (1 << 62).to_bytes(8, "little") + b"x"
    assert scan_pickle(huge).problem == "it is too long"
    nested = b"\x80\x04" + b"]" * 200 + b"."
    assert scan_pickle(nested, max_opcodes=100).problem == "it has too many opcodes"
    many = b"".join(b"cm\nn%d\n0" % index for index in range(2000)) + b"N."
    assert scan_pickle(many).problem == "it names too many things"


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes_are_read_to_an_end(data: bytes) -> None:
    names = scan_pickle(io.BytesIO(data), pickles=3)
    assert names.problem or b"." in data
