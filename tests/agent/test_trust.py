"""A device that demands signatures: what it lets in, what not, and who may change that."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edgesdk.bundle.signing import Signature
from tests.agent.agent_driver import (
    ONE,
    AgentProcess,
    EchoBundle,
    SocketTalk,
    Start,
    current,
    deploy,
    push,
    stage,
)
from tests.agent.signing_driver import Key, needs_ssh_keygen

pytestmark = needs_ssh_keygen
Trust = Callable[..., dict[str, Any]]


@pytest.fixture
def trust(agent_modules: Callable[[str], Any], state: Path, tmp_path: Path) -> Trust:
    """``edge-agent trust`` as somebody on the device runs it."""
    parser = agent_modules("edge_agent.__main__")._parser("trust")
    change = agent_modules("edge_agent.policy_command").change_trust

    def run(
        what: str, *rest: str, given: str | None = None, fails: str | None = None
    ) -> dict[str, Any]:
        if given is not None:
            file = tmp_path / "given"
            file.write_text(given)
            rest = (*rest[:-1], str(file))
        arguments = parser.parse_args(["trust", what, "--state", str(state), *rest])
        if fails is not None:
            with pytest.raises(ValueError, match=fails):
                change(arguments)
            return {}
        shown: dict[str, Any] = change(arguments)
        return shown

    return run


@pytest.fixture
def demanding(start: Start, trust: Trust, mine: Key) -> AgentProcess:
    """An agent on a device that demands signatures of `mine`."""
    trust("signers", "-", given=mine.signer())
    assert trust("require", "yes")["require"] is True
    return start()


def vouch(talk: Any, signed: Signature, **changes: Any) -> dict[str, Any]:
    asked = {
        "bundle": signed.bundle,
        "statement": signed.statement,
        "signature": signed.armored,
        **changes,
    }
    reply: dict[str, Any] = talk.ask("vouch", **asked).meta
    return reply


def deploy_signed(talk: Any, bundle: EchoBundle, key: Key, counter: int) -> None:
    """Deploy and let the probation end well."""
    assert vouch(talk, key.sign(bundle, counter=counter))["verified"]
    deploy(talk, bundle)
    assert talk.ask("confirm").meta["ok"]


def assert_refused(reply: dict[str, Any], why: str) -> None:
    assert reply["ok"] is False, reply
    assert reply["code"] == "not-trusted", reply
    assert reply["facts"]["why"] == why, reply


def test_unsigned_bundle_is_refused_before_anything_is_sent(demanding: AgentProcess) -> None:
    assert demanding.hello["signatures"] == "required"
    bundle = EchoBundle()
    reply = demanding.ask("stage", bundle.data, bundle=bundle.id).meta
    assert_refused(reply, "absent")
    assert reply["detail"] == (
        f"bundle {bundle.id[:12]} is not trusted: this device demands a signature, and there "
        "is none"
    )
    for op in ("commit", "finish", "check", "activate"):
        assert_refused(demanding.ask(op, bundle=bundle.id).meta, "absent")
    for op in ("run", "bench", "pair", "profile"):
        assert_refused(demanding.ask(op, release=bundle.id).meta, "absent")
    assert demanding.ask("releases").meta["releases"] == []


def test_field_that_names_a_trusted_release_opens_nothing_for_another(
    demanding: AgentProcess, mine: Key
) -> None:
    deploy_signed(demanding, EchoBundle(), mine, 1)
    other = EchoBundle(b"unsigned")
    for op in ("stage", "commit", "finish", "check", "activate"):
        reply = demanding.ask(op, other.data, bundle=other.id, release="current").meta
        assert_refused(reply, "absent")
    reply = demanding.ask("pair", release="current", against=other.id, order="01").meta
    assert_refused(reply, "absent")


def test_signed_bundle_is_deployed(demanding: AgentProcess, mine: Key) -> None:
    bundle = EchoBundle()
    reply = vouch(demanding, mine.sign(bundle, counter=5))
    assert reply["verified"] is True
    assert reply["signer"].startswith("me (SHA256:")
    assert (reply["counter"], reply["floor"], reply["downgrade"]) == (5, 0, False)
    deploy(demanding, bundle)
    demanding.ask("confirm")
    assert demanding.ask("trust").meta["floors"] == {"echo": 5}


def test_what_does_not_count_is_refused_each_with_its_word(
    demanding: AgentProcess, mine: Key, other: Key
) -> None:
    bundle, second = EchoBundle(), EchoBundle(b"another")
    good, theirs = mine.sign(bundle), other.sign(bundle)
    of_second = mine.sign(second)
    no_statement = mine.sign_bytes(b'{"bundle":1}')
    cases = {
        "empty": {"signature": ""},
        "unknown-key": {"signature": theirs.armored, "statement": theirs.statement},
        "wrong": {"statement": good.statement.replace('"counter":1', '"counter":9')},
        "other-bundle": {"statement": of_second.statement, "signature": of_second.armored},
        "truncated": {"signature": good.armored[:200]},
        "wrong-namespace": {"signature": mine.sign_bytes(good.statement.encode(), "file")},
        "malformed": {"statement": '{"bundle":1}', "signature": no_statement},
    }
    for why, changes in cases.items():
        assert_refused(vouch(demanding, good, **changes), why)
        assert_refused(demanding.ask("stage", bundle.data, bundle=bundle.id).meta, "absent")
    assert demanding.ask("status").meta["ok"], "the agent lives"


def test_statement_about_another_name_is_refused(demanding: AgentProcess, mine: Key) -> None:
    bundle = EchoBundle()
    assert vouch(demanding, mine.sign(bundle, name="something-else"))["verified"]
    stage(demanding, bundle)  # the manifest, and with it the name, comes only now
    reply = demanding.ask("commit", bundle=bundle.id).meta
    assert_refused(reply, "other-name")
    assert "calls it 'something-else', its manifest 'echo'" in reply["detail"]


def test_missing_or_endless_fields_are_bad_requests(demanding: AgentProcess) -> None:
    bundle = EchoBundle().id
    for fields in ({"statement": 5}, {"signature": ["x"]}, {"statement": "x" * 100_000}):
        assert demanding.ask("vouch", bundle=bundle, **fields).meta["code"] == "bad-request"
    assert demanding.ask("vouch", bundle="../x").meta["code"] == "bad-request"
    assert_refused(demanding.ask("vouch", bundle=bundle).meta, "empty")


def test_older_signed_bundle_is_refused_once_a_newer_settled(
    demanding: AgentProcess, mine: Key
) -> None:
    old, new = EchoBundle(b"old"), EchoBundle(b"new")
    deploy_signed(demanding, old, mine, 3)
    deploy_signed(demanding, new, mine, 7)
    reply = demanding.ask("activate", bundle=old.id).meta
    assert_refused(reply, "outdated")
    assert "its counter is 3, and this device has settled on 7 for 'echo'" in reply["detail"]
    assert_refused(demanding.ask("rollback").meta, "outdated")
    assert_refused(vouch(demanding, mine.sign(old, counter=6)), "outdated")
    assert_refused(demanding.ask("run", release="previous", tensors=[]).meta, "outdated")
    assert current(demanding) == new.id
    # a name of its own has a counter of its own
    deploy_signed(demanding, EchoBundle(b"old", name="unrelated"), mine, 1)


def test_until_probation_ends_the_device_may_go_back(
    demanding: AgentProcess, mine: Key, start: Start
) -> None:
    old, new = EchoBundle(b"old"), EchoBundle(b"new")
    deploy_signed(demanding, old, mine, 3)
    assert vouch(demanding, mine.sign(new, counter=7))["verified"]
    deploy(demanding, new)
    assert demanding.ask("trust").meta["floors"] == {"echo": 3}
    assert demanding.ask("rollback", why="it is slow").meta["ok"]
    assert current(demanding) == old.id
    assert demanding.ask("trust").meta["floors"] == {"echo": 3}


def test_counter_that_a_power_cut_kept_from_rising_rises_at_the_next_start(
    demanding: AgentProcess, mine: Key, start: Start, state: Path
) -> None:
    bundle = EchoBundle()
    deploy_signed(demanding, bundle, mine, 3)
    demanding.hang_up()
    (state / "trust" / "floors.json").unlink()
    assert start().ask("trust").meta["floors"] == {"echo": 3}


def test_bundle_signed_anew_is_wanted_now(demanding: AgentProcess, mine: Key) -> None:
    old, new = EchoBundle(b"old"), EchoBundle(b"new")
    deploy_signed(demanding, old, mine, 3)
    deploy_signed(demanding, new, mine, 7)
    deploy_signed(demanding, old, mine, 8)
    assert current(demanding) == old.id
    assert_refused(demanding.ask("activate", bundle=new.id).meta, "outdated")


def test_going_back_is_allowed_by_a_request_signed_for_this_once(
    demanding: AgentProcess, mine: Key, other: Key
) -> None:
    old, new = EchoBundle(b"old"), EchoBundle(b"new")
    deploy_signed(demanding, old, mine, 3)
    deploy_signed(demanding, new, mine, 7)
    challenge = demanding.ask("trust").meta["challenge"]
    for stale in ("0" * 64, challenge[::-1]):
        request = mine.sign(old, counter=3, downgrade=stale)
        assert_refused(vouch(demanding, request), "stale-downgrade")
    theirs = other.sign(old, counter=3, downgrade=challenge)
    assert_refused(vouch(demanding, theirs), "unknown-key")
    request = mine.sign(old, counter=3, downgrade=challenge)
    assert vouch(demanding, request)["downgrade"] is True
    # what lies with the bundle may be given again, it takes nothing away
    assert vouch(demanding, mine.sign(old, counter=3))["verified"]
    assert demanding.ask("rollback").meta["ok"]
    assert current(demanding) == old.id
    assert_refused(vouch(demanding, request), "stale-downgrade")


def test_request_to_go_back_serves_once(demanding: AgentProcess, mine: Key) -> None:
    old, new = EchoBundle(b"old"), EchoBundle(b"new")
    deploy_signed(demanding, old, mine, 3)
    deploy_signed(demanding, new, mine, 7)
    challenge = demanding.ask("trust").meta["challenge"]
    vouch(demanding, mine.sign(old, counter=3, downgrade=challenge))
    assert demanding.ask("activate", bundle=old.id).meta["ok"]
    demanding.ask("confirm")
    assert demanding.ask("trust").meta["floors"] == {"echo": 3}
    deploy_signed(demanding, new, mine, 7)
    assert_refused(demanding.ask("activate", bundle=old.id).meta, "outdated")
    assert_refused(demanding.ask("rollback").meta, "outdated")


def test_somebody_on_the_device_may_allow_going_back(
    demanding: AgentProcess, trust: Trust, mine: Key
) -> None:
    old, new = EchoBundle(b"old"), EchoBundle(b"new")
    deploy_signed(demanding, old, mine, 3)
    deploy_signed(demanding, new, mine, 7)
    assert trust("allow-downgrade", "echo", "3")["floors"] == {"echo": 3}
    assert demanding.ask("rollback").meta["ok"]
    assert current(demanding) == old.id
    trust("allow-downgrade", "../x", "3", fails="no name of a bundle")
    trust("allow-downgrade", "echo", "-1", fails="from 0 to")


def test_key_revoked_on_the_device_counts_no_more_at_once(
    demanding: AgentProcess, trust: Trust, mine: Key
) -> None:
    bundle = EchoBundle()
    signature = mine.sign(bundle)
    assert vouch(demanding, signature)["verified"]
    stage(demanding, bundle)
    trust("revoked", "-", given=mine.public, fails="no key would count")
    trust("require", "no")
    trust("revoked", "-", given=mine.public)
    assert_refused(vouch(demanding, signature), "revoked")
    trust("require", "yes", fails="no key would count")


def test_current_release_goes_on_although_its_key_is_gone(
    demanding: AgentProcess, trust: Trust, mine: Key, other: Key
) -> None:
    bundle = EchoBundle()
    deploy_signed(demanding, bundle, mine, 1)
    trust("signers", "-", given=other.signer())
    tensors = [{"name": "x", "dtype": "int32", "shape": [2], "offset": 0, "nbytes": 8}]
    assert demanding.ask("run", ONE, release="current", tensors=tensors).body == ONE
    assert_refused(demanding.ask("activate", bundle=bundle.id).meta, "unknown-key")


def test_expired_key_and_a_clock_that_was_set_back(
    start: Start, trust: Trust, mine: Key, state: Path
) -> None:
    """What was signed since proves that time has passed, whatever the clock says."""
    trust("signers", "-", given=mine.signer(options='valid-before="20270101Z"'))
    trust("require", "yes")
    floors = state / "trust" / "floors.json"
    floors.write_text(json.dumps({"schema": 1, "floors": {}, "newest": 1_900_000_000}))
    agent = start()
    assert_refused(vouch(agent, mine.sign(EchoBundle())), "expired")


def test_signature_is_checked_though_none_is_demanded(
    start: Start, trust: Trust, mine: Key, other: Key
) -> None:
    trust("signers", "-", given=mine.signer())
    agent = start()
    assert agent.hello["signatures"] == "checked"
    bundle = EchoBundle()
    assert_refused(vouch(agent, other.sign(bundle)), "unknown-key")
    deploy(agent, bundle)
    assert vouch(agent, mine.sign(bundle, counter=4))["verified"]


def test_device_without_signers_says_that_it_did_not_look(
    agent: AgentProcess, mine: Key
) -> None:
    assert agent.hello["signatures"] == "ignored"
    reply = vouch(agent, mine.sign(EchoBundle()))
    assert reply["ok"]
    assert reply["verified"] is False
    assert reply["why"] == "this device knows no signer, so the signature was not checked"


def test_damaged_trust_files_open_nothing(
    demanding: AgentProcess, mine: Key, state: Path, tmp_path: Path
) -> None:
    bundle = EchoBundle()
    signature = mine.sign(bundle)
    (tmp_path / "elsewhere").write_text("{}")
    for name in ("policy.json", "allowed_signers", "floors.json", "revoked_keys"):
        path = state / "trust" / name
        before = path.read_bytes() if path.exists() else None
        for damage in (b"\xff\xfe", b"{", b"[]", b"x" * (2 << 20), None):
            path.unlink(missing_ok=True)
            if damage is None:
                path.symlink_to(tmp_path / "elsewhere")
            else:
                path.write_bytes(damage)
            assert_refused(vouch(demanding, signature), "damaged")
            staged = demanding.ask("stage", bundle.data, bundle=bundle.id).meta
            assert staged["ok"] is False, (name, damage)
        path.unlink()
        if before is not None:
            path.write_bytes(before)
    assert vouch(demanding, signature)["verified"]


def test_host_sets_it_once_and_cannot_switch_it_off(
    agent: AgentProcess, mine: Key, other: Key
) -> None:
    asked = {"signers": mine.signer(), "require": True}
    assert agent.ask("trust", set=asked).meta["require"] is True
    changes: list[dict[str, Any]] = [
        {"require": False},
        {"remote": True},
        {"signers": other.signer()},
        {"revoked": mine.public},
        {},
    ]
    for change in changes:
        assert_refused(agent.ask("trust", set=change).meta, "set-before")
    assert agent.ask("trust").meta["signers"][0]["who"].startswith("me (SHA256:")
    bundle = EchoBundle()
    assert_refused(agent.ask("stage", bundle.data, bundle=bundle.id).meta, "absent")


def test_host_may_go_on_where_the_device_says_so(agent: AgentProcess, mine: Key) -> None:
    asked = {"signers": mine.signer(), "require": True, "remote": True}
    assert agent.ask("trust", set=asked).meta["remote"] is True
    assert agent.ask("trust", set={"require": False}).meta["require"] is False
    assert agent.ask("trust", set={"remote": False}).meta["remote"] is False
    assert_refused(agent.ask("trust", set={"require": True}).meta, "set-before")


def test_demands_that_make_no_sense_set_nothing(agent: AgentProcess) -> None:
    for asked in (
        {"require": True},
        {"require": "yes"},
        {"signers": 5},
        {"signers": "me ssh-ed25519 nothing", "require": True},
        {"line_key": "00"},
        {"signers": "x" * 200_000},
        [],
        "all",
    ):
        assert agent.ask("trust", set=asked).meta["code"] == "bad-request"
        assert agent.ask("trust").meta["is_set"] is False


def test_daemon_sees_what_is_set_beside_it(
    start: Start, trust: Trust, state: Path, mine: Key
) -> None:
    daemon = start(command="run", greet=False)
    assert daemon.process.stderr is not None
    assert daemon.process.stderr.readline() == b"edge-agent: ready\n"
    talk = SocketTalk(state)
    first, second = EchoBundle(b"first"), EchoBundle(b"second")
    deploy(talk, first)
    trust("signers", "-", given=mine.signer())
    trust("require", "yes")
    assert_refused(talk.ask("stage", second.data, bundle=second.id).meta, "absent")
    assert current(talk) == first.id
    trust("require", "no")
    push(talk, second)
    talk.close()


def test_statements_that_nobody_needs_are_bounded(
    demanding: AgentProcess, mine: Key, state: Path
) -> None:
    kept = EchoBundle()
    deploy_signed(demanding, kept, mine, 1)
    entry = (state / "trust" / "vouched" / kept.id).read_bytes()
    for number in range(100):
        (state / "trust" / "vouched" / f"{number:064x}").write_bytes(entry)
    deploy_signed(demanding, EchoBundle(b"next"), mine, 1)
    assert len(os.listdir(state / "trust" / "vouched")) == 2


def test_trust_files_are_for_the_owner_alone(
    demanding: AgentProcess, trust: Trust, state: Path
) -> None:
    trust("key", "--new")
    for path in (state / "trust").rglob("*"):
        assert path.stat().st_mode & 0o077 == 0, path


def test_new_key_is_printed_once_and_never_again(
    trust: Trust, start: Start, state: Path
) -> None:
    key = trust("key", "--new")["new_key"]
    assert len(bytes.fromhex(key)) == 32
    shown = json.dumps(trust("show"))
    assert '"line_key": true' in shown
    agent = start()
    replies = json.dumps([agent.ask(op).meta for op in ("trust", "status", "facts", "logs")])
    for text in (shown, replies, (state / "logs" / "agent.log").read_text()):
        assert key not in text
    assert agent.ask("facts").meta["ok"], "this is no line: no key is asked for"
    assert trust("key", "--remove")["line_key"] is False


def test_key_from_a_file_must_be_random_digits(trust: Trust, tmp_path: Path) -> None:
    good = tmp_path / "key"
    good.write_text("0123456789abcdef" * 4 + "\n")
    assert trust("key", "--from", str(good))["line_key"] is True
    for text in ("password", "0" * 64, "ABCDEF0123456789" * 4, "", "0123456789abcdef" * 3):
        trust("key", "--from", "-", given=text, fails="it is no key .expected 64 random")
    trust("key", "--from", str(tmp_path / "gone"), fails="No such file")


def test_trust_on_the_command_line(
    agent_pyz: Path, state: Path, oldest_python: str, mine: Key
) -> None:
    def run(*arguments: str, given: str = "") -> subprocess.CompletedProcess[str]:
        command = [oldest_python, "-I", "-S", str(agent_pyz), "trust", *arguments]
        return subprocess.run(
            command, input=given, capture_output=True, text=True, timeout=30, check=False
        )

    assert run().returncode == 2
    at = ("--state", str(state))
    assert run("signers", *at, "-", given=mine.signer()).returncode == 0
    refused = run("require", *at, "maybe")
    assert refused.returncode == 2
    assert json.loads(run("require", *at, "yes").stdout)["require"] is True
    bad = run("signers", *at, "-", given="me\n")
    assert bad.returncode == 2
    assert bad.stderr == (
        "edge-agent: cannot set what is demanded: line 1 of the signers: expected a name, a "
        "key's type and the key\n"
    )
    assert json.loads(run("show", *at).stdout)["signers"][0]["who"].startswith("me (SHA256:")
