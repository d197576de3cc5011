"""What reaches a screen, a pipe or a script, and what never does."""

from __future__ import annotations

import dataclasses
import enum
import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgesdk.cli.output import Format, Output, jsonable, printable, size_text, wrap_text


class Colour(enum.StrEnum):
    RED = "red"


@dataclasses.dataclass(frozen=True, slots=True)
class Point:
    x: float
    where: Path


def test_json_goes_to_stdout_and_text_for_people_does_not(capsys) -> None:
    out = Output("status", Format.JSON)
    out.line("for people")
    out.pairs([("a", 1)])
    out.table(("a",), [(1,)])
    out.note("a remark")
    out.document({"device": "local"})
    seen = capsys.readouterr()
    assert json.loads(seen.out) == {"schema": "edgesdk.status/1", "device": "local"}
    assert seen.err == "a remark\n"


def test_text_holds_no_json(capsys) -> None:
    out = Output("status", Format.TEXT)
    out.document({"device": "local"})
    out.line("for people")
    assert capsys.readouterr().out == "for people\n"


def test_a_table_in_a_pipe_is_aligned_text(capsys) -> None:
    Output("x", Format.TEXT).table(
        ("name", "size"), [("a", 10), ("long name", None)], title="things", right=("size",)
    )
    assert capsys.readouterr().out == "things\nname       size\na            10\nlong name\n"


def test_pairs_keep_further_lines_under_the_first(capsys) -> None:
    Output("x", Format.TEXT).pairs([("inputs", "a\nb"), ("none", None), ("n", 1)])
    assert capsys.readouterr().out == "inputs  a\n        b\nn       1\n"


def test_names_from_a_model_cannot_steer_the_terminal(capsys) -> None:
    Output("x", Format.TEXT).table(("name",), [("\x1b[2J\x07evil\r",)])
    seen = capsys.readouterr().out
    assert "\x1b" not in seen
    assert "\x07" not in seen
    assert r"\x1b[2J\x07evil\r" in seen


@given(st.text(st.characters(codec=None)))
def test_printable_text_can_always_be_written(text: str) -> None:
    shown = printable(text)
    shown.encode("utf-8")
    assert all(char.isprintable() or char in "\n\t" for char in shown)


def test_values_of_all_kinds_become_json() -> None:
    value = {
        "point": Point(math.nan, Path("/a")),
        "numpy": np.float32(0.5),
        "array": np.arange(3),
        "colour": Colour.RED,
        "set": {"b", "a"},
        "bytes": b"\x01",
        "none": None,
        7: True,
    }
    assert jsonable(value) == {
        "point": {"x": None, "where": "/a"},
        "numpy": 0.5,
        "array": [0, 1, 2],
        "colour": "red",
        "set": ["a", "b"],
        "bytes": "01",
        "none": None,
        "7": True,
    }
    json.dumps(jsonable(value), allow_nan=False)


@pytest.mark.parametrize(
    ("size", "text"),
    [(0, "0 B"), (999, "999 B"), (1536, "1.5 KiB"), (4_700_000, "4.5 MiB"), (None, "unknown")],
)
def test_sizes_read_as_people_say_them(size: int | None, text: str) -> None:
    assert size_text(size) == text


def test_long_text_is_broken_at_spaces_and_commands_stay_whole(monkeypatch) -> None:
    monkeypatch.setenv("COLUMNS", "50")
    text = (
        "give it a key: run `ssh-keyscan -p 22 -t ed25519 bench-3 >> known_hosts` and try again"
    )
    lines = wrap_text(text, indent=6).splitlines()
    assert lines == [
        "give it a key: run",
        "`ssh-keyscan -p 22 -t ed25519 bench-3 >> known_hosts`",
        "and try again",
    ]
    assert wrap_text("short\nand in two lines") == "short\nand in two lines"
