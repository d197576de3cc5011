"""OpenSSH signatures on the device: which count, and why the others do not."""

from __future__ import annotations

import base64
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edgesdk.wire.statement import NAMESPACE
from tests.agent.signing_driver import (
    Key,
    SecurityKey,
    armor,
    crafted,
    needs_ssh_keygen,
    packed,
    signed_data,
)

pytestmark = needs_ssh_keygen
MESSAGE = b"what is signed"
NOW_S = 1_800_000_000.0


@pytest.fixture(scope="module")
def signing(agent_modules: Callable[[str], Any]) -> Any:
    return agent_modules("edge_agent.signing")


@pytest.fixture(scope="module")
def keys(agent_modules: Callable[[str], Any]) -> Any:
    return agent_modules("edge_agent.signing_keys")


@pytest.fixture(params=["ssh-keygen", "python"])
def checker(request: pytest.FixtureRequest, signing: Any) -> Any:
    """Both ways to check: with the tool, and on a device that has none."""
    return signing.Checker() if request.param == "ssh-keygen" else signing.Checker(())


Refusal = Callable[..., tuple[str, str]]


@pytest.fixture
def refusal(signing: Any, keys: Any, checker: Any) -> Refusal:
    """Why a signature is refused: one word, and the sentence."""

    def ask(armored: str, allowed: str, message: bytes = MESSAGE, **kwargs: Any) -> Any:
        signers = keys.load_signers(allowed, kwargs.get("revoked", ""))
        with pytest.raises(signing.BadSignature) as caught:
            checker.check(message, armored, signers, kwargs.get("now_s", NOW_S))
        return caught.value.why, str(caught.value)

    return ask


def test_good_signature_names_its_signer(
    checker: Any, keys: Any, mine: Key, other: Key
) -> None:
    signers = keys.load_signers(
        other.signer("them") + "# a remark\n\n" + mine.signer("me@home")
    )
    found = checker.check(MESSAGE, mine.sign_bytes(MESSAGE), signers, NOW_S)
    assert found.principals == "me@home"
    assert found.label.startswith("me@home (SHA256:")


@pytest.mark.parametrize("kind", ["ecdsa", "rsa"])
def test_other_kinds_of_keys_need_ssh_keygen(
    kind: str, signing: Any, keys: Any, tmp_path: Path
) -> None:
    key = Key(tmp_path, kind=kind)
    signers = keys.load_signers(key.signer())
    armored = key.sign_bytes(MESSAGE)
    assert signing.Checker().check(MESSAGE, armored, signers, NOW_S).principals == "me"
    with pytest.raises(signing.BadSignature, match="does not fit"):
        signing.Checker().check(MESSAGE + b"!", armored, signers, NOW_S)
    with pytest.raises(signing.BadSignature, match=r"has no ssh-keygen .* ssh-ed25519 only"):
        signing.Checker(()).check(MESSAGE, armored, signers, NOW_S)


def test_security_key_counts(signing: Any, keys: Any) -> None:
    key = SecurityKey()
    signers = keys.load_signers("me " + key.public)
    armored = key.sign_bytes(MESSAGE)
    assert signing.Checker().check(MESSAGE, armored, signers, NOW_S).principals == "me"
    with pytest.raises(signing.BadSignature, match="does not fit"):
        signing.Checker().check(b"else", armored, signers, NOW_S)


def test_absent_tool_or_one_that_says_yes_to_all_is_not_used(
    signing: Any, tmp_path: Path
) -> None:
    yes, no = tmp_path / "yes", tmp_path / "no"
    yes.write_text("#!/bin/sh\nexit 0\n")
    no.write_text("#!/bin/sh\nexit 1\n")
    for path in (yes, no):
        path.chmod(0o755)
        assert signing.Checker((str(path),)).tool is None
    assert signing.Checker((str(tmp_path / "gone"),)).tool is None
    assert signing.Checker((str(yes), "/usr/bin/ssh-keygen")).tool == "/usr/bin/ssh-keygen"


def test_other_message(refusal: Refusal, mine: Key) -> None:
    armored = mine.sign_bytes(MESSAGE)
    why, text = refusal(armored, mine.signer(), message=MESSAGE + b" ")
    assert why == "wrong"
    assert text == "the signature does not fit: what was signed is something else"


@pytest.mark.parametrize("armored", ["", "   ", "\n\n"])
def test_empty(refusal: Refusal, mine: Key, armored: str) -> None:
    assert refusal(armored, mine.signer()) == ("empty", "the signature is empty")


@pytest.mark.parametrize("armored", ["yes", "-----BEGIN PGP SIGNATURE-----\nAA\n", "\0" * 9])
def test_something_else(refusal: Refusal, mine: Key, armored: str) -> None:
    why, text = refusal(armored, mine.signer())
    assert (why, text) == ("malformed", "the signature is no SSH signature")


def test_blanks_that_are_not_ascii(refusal: Refusal, mine: Key) -> None:
    for armored in ("\u2003" + mine.sign_bytes(MESSAGE), mine.sign_bytes(MESSAGE) + "\x85"):
        assert refusal(armored, mine.signer()) == (
            "malformed",
            "the signature is not ASCII",
        )


def test_endless(refusal: Refusal, mine: Key) -> None:
    why, text = refusal("A" * 100_000, mine.signer())
    assert why == "malformed"
    assert text == "the signature has 100000 characters (at most 16384)"


def test_cut_off_anywhere(refusal: Refusal, mine: Key) -> None:
    lines = mine.sign_bytes(MESSAGE).strip().splitlines()
    data = base64.b64decode("".join(lines[1:-1]))
    for length in range(len(data)):
        why, _ = refusal(armor(data[:length]), mine.signer())
        assert why in ("truncated", "empty", "malformed"), (length, why)
    assert refusal("\n".join(lines[:-1]), mine.signer())[0] == "truncated"


def test_every_flipped_bit(refusal: Refusal, mine: Key) -> None:
    lines = mine.sign_bytes(MESSAGE).strip().splitlines()
    data = base64.b64decode("".join(lines[1:-1]))
    for place in range(3, 8 * len(data), 29):
        broken = bytearray(data)
        broken[place // 8] ^= 1 << place % 8
        refusal(armor(bytes(broken)), mine.signer())


def test_bytes_behind_the_signature(refusal: Refusal, mine: Key) -> None:
    lines = mine.sign_bytes(MESSAGE).strip().splitlines()
    data = base64.b64decode("".join(lines[1:-1]))
    assert refusal(armor(data + b"\0"), mine.signer())[0] == "malformed"


def test_unknown_key(refusal: Refusal, mine: Key, other: Key) -> None:
    why, text = refusal(mine.sign_bytes(MESSAGE), other.signer())
    assert why == "unknown-key"
    assert text.startswith("the signature is by a key that this device does not know (SHA256:")
    assert refusal(mine.sign_bytes(MESSAGE), "")[0] == "unknown-key"


@pytest.mark.parametrize("namespace", ["file", "git", "bundle@edgesdk.org", "bundle"])
def test_signature_for_something_else(refusal: Refusal, mine: Key, namespace: str) -> None:
    why, text = refusal(mine.sign_bytes(MESSAGE, namespace), mine.signer())
    assert why == "wrong-namespace"
    assert text == f"the signature was made for '{namespace}' (expected 'bundle@edgesdk')"


def test_namespace_changed_afterwards(refusal: Refusal, signing: Any, mine: Key) -> None:
    parsed = base64.b64decode("".join(mine.sign_bytes(MESSAGE, "file").split("\n")[1:-2]))
    size = len(b"file")
    start = parsed.index(struct.pack(">I", size) + b"file")
    changed = parsed[:start] + packed(NAMESPACE.encode()) + parsed[start + 4 + size :]
    assert refusal(armor(changed), mine.signer())[0] == "wrong"


def test_key_for_other_purposes(refusal: Refusal, checker: Any, keys: Any, mine: Key) -> None:
    armored = mine.sign_bytes(MESSAGE)
    why, text = refusal(armored, mine.signer(options='namespaces="git,file"'))
    assert why == "wrong-namespace"
    assert "may sign git,file only" in text
    assert refusal(armored, mine.signer(options='namespaces="*,!bundle@*"'))[0] == why
    allowed = keys.load_signers(mine.signer(options='namespaces="file,bundle@*"'))
    assert checker.check(MESSAGE, armored, allowed, NOW_S)


def test_revoked(refusal: Refusal, mine: Key) -> None:
    armored = mine.sign_bytes(MESSAGE)
    for allowed in (mine.signer(), ""):  # no longer listed is still: revoked
        why, text = refusal(armored, allowed, revoked=mine.public + "\n")
        assert why == "revoked"
        assert text.startswith("the signature is by a revoked key (SHA256:")


def test_revoked_key_listed_twice_under_other_names(refusal: Refusal, mine: Key) -> None:
    allowed = mine.signer("a") + mine.signer("b")
    assert refusal(mine.sign_bytes(MESSAGE), allowed, revoked=mine.public)[0] == "revoked"


def test_expired_and_not_yet_valid(
    refusal: Refusal, checker: Any, keys: Any, mine: Key
) -> None:
    allowed = mine.signer(options='valid-after="20260101Z",valid-before="20270101Z"')
    armored = mine.sign_bytes(MESSAGE)
    begin, end = 1_767_225_600.0, 1_798_761_600.0
    for now_s in (begin, end - 1):
        assert checker.check(MESSAGE, armored, keys.load_signers(allowed), now_s)
    for now_s, word in ((begin - 1, "not-yet-valid"), (0.0, "not-yet-valid"), (end, "expired")):
        why, text = refusal(armored, allowed, now_s=now_s)
        assert why == word
        assert "the key of me (SHA256:" in text
    both = allowed + mine.signer(options='valid-after="20270101Z"')
    assert checker.check(MESSAGE, armored, keys.load_signers(both), end)


@pytest.mark.parametrize(
    ("key", "algorithm"),
    [
        (b"ssh-dss", b"ssh-dss"),
        (b"ssh-rsa", b"ssh-rsa"),  # that is SHA-1
        (b"ssh-ed448", b"ssh-ed448"),
        (b"ssh-ed25519", b"rsa-sha2-512"),
        (b"ssh-ed25519-cert-v01@openssh.com", b"ssh-ed25519"),
        (b"none", b"none"),
        (b"", b""),
    ],
)
def test_unknown_algorithm(refusal: Refusal, mine: Key, key: bytes, algorithm: bytes) -> None:
    armored = crafted(packed(key, bytes(32)), packed(algorithm, bytes(64)))
    assert refusal(armored, mine.signer())[0] == "unknown-algorithm"


@pytest.mark.parametrize("hash_name", [b"md5", b"sha1", b"none", b"", b"SHA512"])
def test_unknown_hash(refusal: Refusal, mine: Key, hash_name: bytes) -> None:
    blob = base64.b64decode(mine.public.split()[1])
    armored = crafted(blob, packed(b"ssh-ed25519", bytes(64)), hash_name=hash_name)
    assert refusal(armored, mine.signer())[0] == "unknown-algorithm"


def test_version_of_the_future(refusal: Refusal, mine: Key) -> None:
    blob = base64.b64decode(mine.public.split()[1])
    armored = crafted(blob, packed(b"ssh-ed25519", bytes(64)), version=2)
    assert refusal(armored, mine.signer())[0] == "malformed"


def test_zero_key_even_where_it_is_listed(refusal: Refusal) -> None:
    blob = packed(b"ssh-ed25519", bytes(32))
    allowed = f"me ssh-ed25519 {base64.b64encode(blob).decode()}\n"
    armored = crafted(blob, packed(b"ssh-ed25519", bytes(64)))
    why, text = refusal(armored, allowed)
    assert (why, text) == ("unsound", "the signature is unsound: its key is all zeros")


def test_zero_key_of_another_kind(refusal: Refusal) -> None:
    blob = packed(b"ecdsa-sha2-nistp256", b"nistp256", b"\4" + bytes(64))
    allowed = f"me ecdsa-sha2-nistp256 {base64.b64encode(blob).decode()}\n"
    armored = crafted(blob, packed(b"ecdsa-sha2-nistp256", packed(b"\0", b"\0")))
    assert refusal(armored, allowed)[0] == "unsound"


def test_short_rsa_key(refusal: Refusal) -> None:
    blob = packed(b"ssh-rsa", b"\1\0\1", b"\0" + b"\xc1" * 128)
    allowed = f"me ssh-rsa {base64.b64encode(blob).decode()}\n"
    armored = crafted(blob, packed(b"rsa-sha2-512", b"\1" * 128))
    why, text = refusal(armored, allowed)
    assert why == "unsound"
    assert text.endswith("its RSA key has 1024 bits (at least 2048)")


def test_other_form_of_a_good_signature(refusal: Refusal, mine: Key) -> None:
    order = 2**252 + 27742317777372353535851937790883648493
    data = base64.b64decode("".join(mine.sign_bytes(MESSAGE).strip().split("\n")[1:-1]))
    scalar = int.from_bytes(data[-32:], "little") + order
    changed = data[:-32] + scalar.to_bytes(32, "little")
    why, text = refusal(armor(changed), mine.signer())
    assert why == "unsound"
    assert "another form" in text


def test_what_is_signed_is_what_openssh_says(signing: Any, mine: Key) -> None:
    parsed = signing.parse_signature(mine.sign_bytes(MESSAGE))
    assert signing.signed_bytes(MESSAGE, parsed) == signed_data(MESSAGE)


@pytest.mark.parametrize(
    ("line", "match"),
    [
        ("me", "expected a name"),
        ("me ssh-ed25519", "expected a name"),
        ("me ssh-ed25519 !!!!", "is no key"),
        ("me ssh-ed25519 AAAA", "not of the type"),
        ("me cert-authority {key}", "'cert-authority' is not known"),
        ('me namespaces="file {key}', "quote is not closed"),
        ("me namespaces=file {key}", "is not known"),
        ('me valid-before="soon" {key}', "is no time"),
        ('me valid-before="20271301" {key}', "is no time"),
        ('me valid-before="20270101",valid-before="20280101" {key}', "or twice"),
        ('me verify-required="" {key}', "not known"),
    ],
)
def test_signer_that_is_not_understood_is_an_error(
    keys: Any, mine: Key, line: str, match: str
) -> None:
    text = mine.signer() + line.format(key=mine.public)
    with pytest.raises(keys.KeysError, match=match) as caught:
        keys.load_signers(text)
    assert str(caught.value).startswith("line 2 of the signers: ")


def test_lists_of_keys_are_bounded(keys: Any, mine: Key) -> None:
    with pytest.raises(keys.KeysError, match="more than 256 keys"):
        keys.load_signers(mine.signer() * 257)
    with pytest.raises(keys.KeysError, match="more than 131072 characters"):
        keys.load_signers("#" * 200_000)


def test_names_with_blanks_and_tabs_are_read(keys: Any, mine: Key) -> None:
    signer = keys.load_signers(f'"me and you"\tnamespaces="a b" {mine.public}')[0]
    assert (signer.principals, signer.namespaces) == ("me and you", "a b")
