"""Stage markers are found in whatever a login prints, and nothing else is taken for one."""

from __future__ import annotations

import json
import shlex

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgesdk.errors import BootstrapError
from edgesdk.transport import bootstrap
from edgesdk.transport.bootstrap import (
    Marker,
    MarkerReader,
    bootstrap_command,
    bootstrap_header,
)

TOKEN = "0123456789abcdef" * 2


def line(*words: str | int) -> bytes:
    return f"\nEDGESDK {TOKEN} {json.dumps(words)}\n".encode()


def test_command_is_one_plain_word_after_another_for_any_shell() -> None:
    words = shlex.split(bootstrap_command("/usr/bin/python3.8"))
    assert words[:4] == ["/usr/bin/python3.8", "-E", "-s", "-S"]
    assert words[4] == "-c"
    assert len(words) == 6
    assert not set(words[5]) & set("'\\$`!\n")


def test_header_is_one_line() -> None:
    header = bootstrap_header(
        token=TOKEN, sha256="0" * 64, size=1, state="a\nb", command=["stdio"]
    )
    assert header.count(b"\n") == 1
    assert json.loads(header)["state"] == "a\nb"


@given(st.binary(max_size=300), st.lists(st.integers(1, 40), max_size=30))
def test_marker_is_found_after_any_noise_however_it_arrives(
    noise: bytes, cuts: list[int]
) -> None:
    reader = MarkerReader(TOKEN)
    stream, found = noise + line("HAVE", "3.7.1") + b"EDG1 first frame", None
    for size in [*cuts, len(stream)]:
        found = reader.feed(stream[:size]) or found
        stream = stream[size:]
    assert found == Marker(stage="HAVE", words=("3.7.1",))
    assert reader.rest == b"EDG1 first frame"


@given(st.binary(max_size=200))
def test_nothing_without_the_token_is_a_marker(noise: bytes) -> None:
    assert MarkerReader(TOKEN).feed(b"\nEDGESDK " + noise + b' ["RUN", "x"]\n') is None


def test_two_markers_in_one_piece_come_one_after_the_other() -> None:
    reader = MarkerReader(TOKEN)
    assert reader.feed(line("NEED", "3.9.2") + line("RUN", "a", "b", "c")) == Marker(
        stage="NEED", words=("3.9.2",)
    )
    assert reader.feed(b"") == Marker(stage="RUN", words=("a", "b", "c"))


def test_damaged_marker_is_skipped() -> None:
    reader = MarkerReader(TOKEN)
    broken = f"\nEDGESDK {TOKEN} [1, 2\n".encode()
    assert reader.feed(broken + line("HAVE", "3.7.1")) == Marker(stage="HAVE", words=("3.7.1",))


def test_login_that_prints_without_end_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bootstrap, "MAX_NOISE_BYTES", 10_000)
    reader = MarkerReader(TOKEN)
    reader.feed(b"x" * 9000)
    with pytest.raises(BootstrapError, match="the login printed over 10000 bytes first"):
        reader.feed(b"x" * 9000)
