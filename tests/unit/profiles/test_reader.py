"""Reading YAML a stranger may have written."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgesdk.errors import ProfileError
from edgesdk.profiles.family import load_family
from edgesdk.profiles.reader import MAX_PROFILE_BYTES, read_yaml


def refuse(tmp_path: Path, data: str | bytes) -> ProfileError:
    path = tmp_path / "board.yaml"
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    with pytest.raises(ProfileError) as caught:
        read_yaml(path)
    assert str(caught.value).startswith(f"cannot read target profile {path}: ")
    return caught.value


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("a: 1\nb: 2\na: 3\n", "line 3 repeats the key 'a' of line 1"),
        ("a:\n\tb: 1\n", "line 2 has a tab (expected spaces)"),
        ("a: &x [1]\nb: *x\n", "line 1 has an anchor or alias (expected plain values)"),
        ("b: *x\n", "line 1 has an anchor or alias (expected plain values)"),
        ("a: !!python/name:os.system ''\n", "line 1 has the tag"),
        ("a: !!binary aGk=\n", "line 1 has the tag"),
        ("a: [\n", "is not YAML"),
        ("a: 'x\n", "is not YAML"),
        ("- 1\n- 2\n", "it holds a list (expected a mapping with schema, family, ...)"),
        ("", "it holds nothing (expected a mapping"),
        ("# only a remark\n", "it holds nothing"),
        ("a: 1\n---\nb: 2\n", "begins a second document (expected one)"),
        ("1: a\n", "line 1 has the key 1 (expected text)"),
        ("? [1, 2]\n: a\n", "has the key [1, 2] (expected text)"),
        ("a: " + "[" * 40 + "]" * 40, "is nested more than 16 levels deep"),
        ("a: " + "[" * 100_000, "is nested more than 16 levels deep"),
        ("a: [" + "1," * 30_000 + "]", "it has more than 20000 values"),
    ],
)
def test_yaml_that_is_not_plain_is_refused_with_its_line(
    tmp_path: Path, text: str, complaint: str
) -> None:
    assert complaint in str(refuse(tmp_path, text))


def test_an_alias_bomb_is_refused_before_it_grows(tmp_path: Path) -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [" + ", ".join([f"*a{n - 1}"] * 10) + "]" for n in range(1, 30)]
    assert "line 1 has an anchor or alias" in str(refuse(tmp_path, "\n".join(lines)))


def test_a_file_above_the_size_cap_is_refused(tmp_path: Path) -> None:
    error = refuse(tmp_path, b"# " + b"x" * MAX_PROFILE_BYTES)
    assert "it is larger than 262144 bytes" in str(error)


def test_bytes_that_are_not_utf8_are_refused_with_their_place(tmp_path: Path) -> None:
    error = refuse(tmp_path, b"vendor: Caf\xe9\n")
    assert "byte 11 is not UTF-8" in str(error)
    assert error.hint == "save the file as UTF-8"


def test_a_missing_file_a_folder_and_a_pipe_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ProfileError, match="no such file or directory"):
        read_yaml(tmp_path / "none.yaml")
    with pytest.raises(ProfileError, match=r"is a directory|not a regular file"):
        read_yaml(tmp_path)
    pipe = tmp_path / "pipe.yaml"
    os.mkfifo(pipe)
    with pytest.raises(ProfileError, match="it is not a regular file"):
        read_yaml(pipe)


def test_scalars_mean_what_they_look_like(tmp_path: Path) -> None:
    path = tmp_path / "board.yaml"
    path.write_text(
        "a: 2026-01-15\nb: 8_589_934_592\nc: yes\nd: 1ac1:089a\ne: 18:30\nf: true\ng: ~\n"
        "h: 3.10\ni: 0o17\nj: <<\nk: 1e5\nl:\n",
        encoding="utf-8",
    )
    assert read_yaml(path) == {
        "a": "2026-01-15",
        "b": 8_589_934_592,
        "c": "yes",
        "d": "1ac1:089a",
        "e": "18:30",
        "f": True,
        "g": None,
        "h": 3.1,
        "i": "0o17",
        "j": "<<",
        "k": "1e5",
        "l": None,
    }


def test_a_byte_order_mark_does_no_harm(tmp_path: Path) -> None:
    path = tmp_path / "board.yaml"
    path.write_bytes(b"\xef\xbb\xbfa: 1\n")
    assert read_yaml(path) == {"a": 1}


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.one_of(st.binary(max_size=300), st.text(max_size=300).map(str.encode)))
def test_any_bytes_are_read_or_refused_as_a_profile_error(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "any.yaml"
    path.write_bytes(data)
    try:
        load_family(path)
    except ProfileError as error:
        assert str(error).startswith("cannot ")  # noqa: PT017 -- either outcome is right


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    place=st.integers(0, 10_000),
    insert=st.sampled_from([*"\t:-[]{}#&*!|>'\"%@`,?~\n\x00\x7f0", "- ", ": ", "<<: "]),
    drop=st.integers(0, 12),
)
def test_a_damaged_profile_is_read_or_refused_as_a_profile_error(
    tmp_path: Path, good_text: str, place: int, insert: str, drop: int
) -> None:
    place %= len(good_text)
    path = tmp_path / "damaged.yaml"
    path.write_text(good_text[:place] + insert + good_text[place + drop :], encoding="utf-8")
    try:
        load_family(path)
    except ProfileError as error:
        assert str(path) in str(error)  # noqa: PT017 -- either outcome is right
