"""Known hosts files mean what they mean to OpenSSH; what is not understood is not trusted."""

from __future__ import annotations

import base64
import hashlib
import hmac
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgesdk.errors import HostKeyError
from edgesdk.transport.known_hosts import check_host_key, fingerprint, host_id, known_keys

BLOB = b"\0\0\0\x0bssh-ed25519" + bytes(32)
OTHER = b"\0\0\0\x0bssh-ed25519" + bytes([1] * 32)
KEY = "ssh-ed25519 " + base64.b64encode(BLOB).decode()


def hashed(name: str) -> str:
    salt = bytes(range(20))
    digest = hmac.new(salt, name.encode(), hashlib.sha1).digest()
    return f"|1|{base64.b64encode(salt).decode()}|{base64.b64encode(digest).decode()}"


@pytest.mark.parametrize(
    ("hosts", "name", "found"),
    [
        ("board", "board", True),
        ("Board", "board", True),
        ("board,10.0.0.7", "10.0.0.7", True),
        ("other", "board", False),
        ("[board]:2222", "[board]:2222", True),
        ("board", "[board]:2222", False),
        ("[board]:2222", "board", False),
        ("*.lab", "board.lab", True),
        ("b?ard", "board", True),
        ("*,!board", "board", False),
        ("[abc]oard", "board", False),
        (hashed("board"), "board", True),
        (hashed("other"), "board", False),
        ("|1|broken", "board", False),
    ],
)
def test_names_match_as_openssh_matches_them(
    tmp_path: Path, hosts: str, name: str, found: bool
) -> None:
    (tmp_path / "known").write_text(f"# comment\n{hosts} {KEY} a comment\n")
    keys = known_keys([tmp_path / "missing", tmp_path / "known"], name)
    assert [key.blob for key in keys] == ([BLOB] if found else [])
    assert all(key.line == 2 for key in keys)


def test_port_22_is_filed_under_the_bare_name() -> None:
    assert host_id("Board", 22) == "board"
    assert host_id("board", 2222) == "[board]:2222"


def test_certificate_authorities_are_no_host_keys(tmp_path: Path) -> None:
    (tmp_path / "known").write_text(
        f"@cert-authority board {KEY}\n@odd board {KEY}\nboard {KEY[:9]}"
    )
    assert known_keys([tmp_path / "known"], "board") == []


@given(st.binary(max_size=200))
def test_any_bytes_are_a_file_without_that_host(
    tmp_path_factory: pytest.TempPathFactory, data: bytes
) -> None:
    path = tmp_path_factory.getbasetemp() / "known_any"
    path.write_bytes(data)
    assert known_keys([path], "some-host-that-no-noise-spells") == []


def check(tmp_path: Path, text: str, blob: bytes = BLOB, kind: str = "ssh-ed25519") -> None:
    path = tmp_path / "known"
    path.write_text(text)
    check_host_key(
        blob,
        kind,
        known_keys([path], "board"),
        name="ssh://pi@board",
        host="board",
        port=22,
        filed_as="board",
        files=[path],
    )


def test_key_on_file_passes(tmp_path: Path) -> None:
    check(tmp_path, f"board {KEY}\n")


def test_unknown_key_says_fingerprint_and_command(tmp_path: Path) -> None:
    with pytest.raises(HostKeyError, match="its host key is unknown") as caught:
        check(tmp_path, "")
    assert fingerprint(BLOB) in str(caught.value)
    assert f"ssh-keyscan -p 22 -t ed25519 board >> {tmp_path}/known" in caught.value.hint


def test_changed_key_names_both_fingerprints_and_the_line(tmp_path: Path) -> None:
    with pytest.raises(HostKeyError, match="its host key has changed") as caught:
        check(tmp_path, f"board {KEY}\n", blob=OTHER)
    assert fingerprint(OTHER) in str(caught.value)
    assert fingerprint(BLOB) in str(caught.value)
    assert f"{tmp_path}/known:1" in str(caught.value)


def test_key_of_another_kind_for_a_known_host_is_a_changed_key(tmp_path: Path) -> None:
    with pytest.raises(HostKeyError, match="its host key has changed: it shows ssh-rsa"):
        check(tmp_path, f"board {KEY}\n", blob=OTHER, kind="ssh-rsa")


def test_revoked_key_is_refused_though_listed(tmp_path: Path) -> None:
    with pytest.raises(HostKeyError, match="is revoked in the known hosts"):
        check(tmp_path, f"board {KEY}\n@revoked * {KEY}\n")


def test_fingerprint_is_written_as_openssh_writes_it() -> None:
    assert fingerprint(b"") == "SHA256:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU"
