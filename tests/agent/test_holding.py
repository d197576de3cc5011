"""Two hosts at once: one has the device, the other waits or is told who does."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.agent.agent_driver import HELLO, AgentProcess, EchoBundle, Start, current, deploy
from tests.agent.test_daemon import wait_until_ready

ALICE = {**HELLO, "session": "aa" * 16, "who": "alice@laptop"}
BOB = {**HELLO, "session": "bb" * 16, "who": "bob@desk"}


@pytest.fixture
def daemon(start: Start) -> AgentProcess:
    running = start(command="run", greet=False)
    wait_until_ready(running)
    return running


def greet(start: Start, who: dict[str, Any]) -> AgentProcess:
    host = start(greet=False)
    assert host.ask("hello", **who).meta["ok"]
    return host


@pytest.mark.usefixtures("daemon")
def test_second_host_is_told_who_holds_the_device_and_for_what(start: Start) -> None:
    alice, bob = greet(start, ALICE), greet(start, BOB)
    assert alice.ask("hold", doing="deploy").meta["holder"]["who"] == "alice@laptop"
    bundle = EchoBundle()
    for op, meta in (
        ("hold", {"doing": "deploy"}),
        ("activate", {"bundle": bundle.id}),
        ("commit", {"bundle": bundle.id}),
        ("rollback", {}),
        ("confirm", {}),
        ("gc", {}),
    ):
        reply = bob.ask(op, **meta).meta
        assert reply["code"] == "busy", op
        assert reply["detail"].startswith("the device is held by alice@laptop (deploy, for ")
        facts = reply["facts"]
        assert (facts["who"], facts["doing"]) == ("alice@laptop", "deploy")
        assert 0 <= facts["for_s"] < 60
    holder = bob.ask("status").meta["holder"]
    assert holder["who"] == "alice@laptop"
    deploy(alice, bundle)
    alice.ask("release")
    assert bob.ask("status").meta["holder"] is None
    deploy(bob, EchoBundle(b"bob's"))


@pytest.mark.usefixtures("daemon")
def test_hold_ends_with_a_host_that_is_killed_and_who_waits_gets_it(start: Start) -> None:
    alice, bob = greet(start, ALICE), greet(start, BOB)
    alice.ask("hold", doing="deploy")
    number = bob.talk.send("hold", doing="deploy", wait_s=30)
    time.sleep(0.3)
    alice.kill()
    reply = bob.talk.receive(10).meta
    assert reply["id"] == number
    assert reply["holder"]["who"] == "bob@desk"


@pytest.mark.usefixtures("daemon")
def test_both_of_two_hosts_that_deploy_at_once_get_their_turn(start: Start) -> None:
    """Each finds its own release current when it is done: they never mix."""
    seen: dict[str, str | None] = {}
    failed: list[BaseException] = []

    def work(host: AgentProcess, bundle: EchoBundle) -> None:
        try:
            assert host.ask("hold", doing="deploy", wait_s=30).meta["ok"]
            deploy(host, bundle)
            seen[bundle.id] = current(host)
            host.ask("release")
        except BaseException as exc:  # noqa: BLE001 - shown by the assertion below
            failed.append(exc)

    jobs = [
        (greet(start, ALICE), EchoBundle(b"alice's")),
        (greet(start, BOB), EchoBundle(b"bob's")),
    ]
    threads = [threading.Thread(target=work, args=job) for job in jobs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert failed == []
    assert seen == {bundle.id: bundle.id for _, bundle in jobs}


def test_without_a_daemon_the_second_host_is_told_who_is_served(
    start: Start, state: Path
) -> None:
    alice = greet(start, ALICE)
    alice.ask("hold", doing="deploy")
    bob = start(greet=False)
    reply = bob.ask("hello", **BOB).meta
    assert reply["code"] == "busy"
    text = (
        f"another agent (process {alice.process.pid}) serves {state} for alice@laptop (deploy,"
    )
    assert reply["detail"].startswith(text)
    assert reply["facts"]["who"] == "alice@laptop"
    assert bob.hang_up() == 0


def test_silent_holder_loses_it_to_who_asks(agent_modules: Callable[[str], Any]) -> None:
    holding = agent_modules("edge_agent.holding")
    refused = agent_modules("edge_agent.refusals").Refused
    now, idle = [100.0], [0.0]
    hold = holding.Hold(clock=lambda: now[0])
    alice, bob = holding.Peer(lambda: idle[0]), holding.Peer()
    alice.who = "alice@laptop"

    def take(peer: Any) -> None:
        hold.take(peer, "deploy", wait_s=0.0, cancelled=lambda: False)

    take(alice)
    idle[0] = 19.0
    with pytest.raises(refused, match="held by alice@laptop"):
        take(bob)
    idle[0] = 21.0
    take(bob)
    with pytest.raises(refused, match="held by another host"):
        hold.require(alice)
    hold.release(alice)  # it is not alice's any more
    with pytest.raises(refused):
        hold.require(alice)
    bob.gone = True
    hold.require(alice)
    assert hold.state() is None


def test_name_of_a_host_is_a_clean_line(start: Start) -> None:
    host = start(greet=False)
    name = "eve\n\x1b[31m@" + "x" * 500
    assert host.ask("hello", **{**ALICE, "who": name}).meta["ok"]
    who = host.ask("hold", doing="a\nb").meta["holder"]["who"]
    assert who.startswith("eve  [31m@xxx")
    assert len(who) <= 128
    assert host.ask("hello", **{**BOB, "who": 7}).meta["code"] == "bad-request"
