"""Reading YAML a stranger may have written."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from edgesdk.errors import ProfileError, RecipeError
from edgesdk.yaml_file import MAX_YAML_BYTES
from edgesdk.yaml_file import read_yaml as read_any


def read_yaml(path: Path) -> dict[str, Any]:
    expected = "a mapping with schema, family, ..."
    return read_any(path, what="target profile", error=ProfileError, expected=expected)


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
    error = refuse(tmp_path, b"# " + b"x" * MAX_YAML_BYTES)
    assert "it is larger than 262144 bytes" in str(error)


def test_bytes_that_are_not_utf8_are_refused_with_their_place(tmp_path: Path) -> None:
    error = refuse(tmp_path, b"vendor: Caf\xe9\n")
    assert "byte 11 is not UTF-8" in str(error)
    assert error.hint == "save it as UTF-8"


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


def test_an_empty_file_holds_nothing(tmp_path: Path) -> None:
    path = tmp_path / "empty.yaml"
    for text in ("", "# only a remark\n"):
        path.write_text(text)
        assert read_yaml(path) == {}


def test_the_caller_says_what_it_is_and_what_to_try(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"cannot read recipe .*: no such file") as caught:
        read_any(tmp_path / "r.yaml", what="recipe", error=RecipeError, hint="see configs")
    assert caught.value.hint == "see configs"
