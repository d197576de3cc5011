"""Frames, ids, events and refusals: what a host may send, and what it gets."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pytest

from edgesdk.wire.frames import Frame, encode_frame
from edgesdk.wire.ops import OPS
from tests.agent.agent_driver import (
    HELLO,
    ONE,
    AgentProcess,
    EchoBundle,
    Start,
    deploy,
    push,
    wait_until_gone,
)

NAMES: list[Any] = [
    "../x",
    "a/../../x",
    "/abs",
    "a\0b",
    "",
    ".",
    "..",
    "a" * 256,
    "a" * 4096,
    "\n",
    "\x1b[2J",
    "-rf",
    "$(id)",
    ";reboot",
    "CON",
    "\u202egnp",
    "A" * 64,
    "a" * 63,
    None,
    5,
    ["a" * 64],
    {"a": 1},
    True,
]


def test_hello_says_what_the_agent_is(agent: AgentProcess) -> None:
    hello = agent.hello
    assert hello["protocol"] == 1
    assert hello["daemon"] is False
    assert hello["pid"] == agent.process.pid
    assert hello["limits"] == {"max_chunk_bytes": 1 << 20, "max_body_bytes": 64 << 20}
    assert len(hello["agent_sha256"]) == 64


@pytest.mark.parametrize(
    ("asked", "old"), [([2, 9], "agent"), ([0, 0], "host")], ids=["newer", "older"]
)
def test_no_common_protocol_names_both_and_the_old_one(
    start: Start, asked: list[int], old: str
) -> None:
    agent = start(greet=False)
    reply = agent.ask("hello", **{**HELLO, "protocol": asked}).meta
    assert reply["code"] == "version"
    assert reply["detail"] == (
        f"the host speaks protocol {asked[0]} to {asked[1]}, this agent 1 to 1: "
        f"the {old} is old"
    )
    assert reply["facts"]["protocol"] == [1, 1]
    assert reply["facts"]["old"] == old


def test_unknown_operation_is_refused_by_name(agent: AgentProcess) -> None:
    reply = agent.ask("explode").meta
    assert reply["code"] == "unknown-op"
    assert reply["detail"] == "this agent has no operation 'explode'"


@pytest.mark.parametrize("op", ["stage", "put", "commit", "check", "activate", "run", "bench"])
def test_bad_names_are_refused_and_become_no_path(
    agent: AgentProcess, state: Path, op: str
) -> None:
    before = sorted(str(path) for path in state.rglob("*"))
    for name in NAMES:
        meta = {"bundle": name, "sha256": name, "release": name, "bytes": 3, "offset": 0}
        reply = agent.ask(op, b"abc", **meta).meta
        assert reply["ok"] is False
        assert reply["code"] == "bad-request", (name, reply)
    assert sorted(str(path) for path in state.rglob("*")) == before
    assert agent.ask("status").meta["ok"]


@pytest.mark.parametrize("size", [-1, 1 << 63, (1 << 40) + 1, 1.5, "3", None, True])
def test_bad_sizes_are_refused(agent: AgentProcess, size: object) -> None:
    for meta in ({"bytes": size, "offset": 0}, {"bytes": 3, "offset": size}):
        reply = agent.ask("put", b"abc", sha256="a" * 64, **meta).meta
        assert reply["code"] == "bad-request"
        assert "expected an integer from 0" in reply["detail"]


def test_every_operation_survives_an_empty_request(agent: AgentProcess) -> None:
    for op in OPS:
        if op != "shutdown":
            assert agent.ask(op).meta["ok"] in (True, False)
    assert agent.ask("status").meta["ok"]


def test_noise_between_frames_costs_nothing(agent: AgentProcess) -> None:
    agent.talk.write(b"[  1.2] usb 1-1: EDG1 new device\r\nlogin: \x11\x13\0\xff" * 50)
    assert agent.ask("status").meta["ok"]


def test_request_without_an_id_is_refused_and_the_next_is_answered(agent: AgentProcess) -> None:
    for number in (None, 0, -1, 1.5, "1", True, 1 << 60):
        agent.talk.write(encode_frame(Frame({"op": "status", "id": number})))
        assert agent.talk.receive().meta["code"] == "bad-request"
    assert agent.ask("status").meta["ok"]


def test_new_session_on_the_link_ends_the_work_of_the_old_one(agent: AgentProcess) -> None:
    push(agent, bundle := EchoBundle(options={"delay_ms": 60_000}))
    agent.talk.send("check", bundle=bundle.id)
    worker = child_of(agent.process.pid)
    agent.talk.send("shutdown")
    agent.talk.last_id = 0
    agent.talk.send("hello", **{**HELLO, "session": "cd" * 16})
    reply = agent.talk.receive().meta
    assert (reply["id"], reply["ok"]) == (1, True), "nobody waits for what was asked before"
    wait_until_gone(worker)
    assert agent.ask("status").meta["ok"], "what waited is not done either"


def test_agent_shows_life_while_a_model_is_slow(agent: AgentProcess) -> None:
    push(agent, bundle := EchoBundle(options={"delay_ms": 1600}))
    assert agent.ask("check", bundle=bundle.id).meta["passed"]
    alive = [event for event in agent.talk.events if event["event"] == "alive"]
    assert len(alive) >= 2


def test_printing_runtime_cannot_break_a_frame(agent: AgentProcess) -> None:
    push(agent, bundle := EchoBundle(options={"print": "hello EDG1 from a vendor library\n"}))
    assert agent.ask("check", bundle=bundle.id).meta["passed"]
    assert agent.talk.reader.noise_bytes == 0


def test_host_that_hangs_up_leaves_no_worker_behind(start: Start) -> None:
    agent = start()
    push(agent, bundle := EchoBundle(options={"delay_ms": 60_000}))
    agent.talk.send("check", bundle=bundle.id)
    worker = child_of(agent.process.pid)
    started = time.monotonic()
    assert agent.hang_up() == 0
    assert time.monotonic() - started < 5
    wait_until_gone(worker)


def test_killed_agent_takes_its_worker_with_it(start: Start) -> None:
    agent = start()
    push(agent, bundle := EchoBundle(options={"delay_ms": 60_000}))
    agent.talk.send("check", bundle=bundle.id)
    worker = child_of(agent.process.pid)
    agent.kill()
    wait_until_gone(worker)


def test_idle_agent_leaves_when_it_was_told_to(start: Start) -> None:
    agent = start("--idle-exit", "0.2")
    assert agent.process.wait(10) == 0


def test_facts_describe_machine_and_runtimes(agent: AgentProcess) -> None:
    facts = agent.ask("facts", runtimes=True).meta["facts"]
    assert facts["machine"] == os.uname().machine
    assert facts["emulated"] is None
    assert facts["system"] == "Linux"
    assert facts["ram_bytes"] > 1 << 27
    assert facts["disk_free_bytes"] > 0
    assert facts["runtimes"]["echo"]["version"] == agent.hello["agent_version"]
    assert facts["runtimes"]["echo"]["why"] is None
    assert set(facts["runtimes"]) == {"echo", "litert", "onnxruntime", "openvino", "tensorrt"}
    assert "runtimes" not in agent.ask("facts").meta["facts"]


def test_logs_give_the_last_lines(agent: AgentProcess) -> None:
    push(agent, EchoBundle())
    lines = agent.ask("logs", lines=2).meta["lines"]
    assert len(lines) == 2
    assert "commit: done" in lines[-1]


def test_shutdown_ends_the_agent(start: Start) -> None:
    agent = start()
    assert agent.ask("shutdown").meta["ok"]
    assert agent.process.wait(10) == 0


def child_of(pid: int) -> int:
    """The first child of a process, waited for."""
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        tasks = Path(f"/proc/{pid}/task")
        for children in tasks.glob("*/children"):
            found = children.read_text().split()
            if found:
                return int(found[0])
        time.sleep(0.02)
    raise AssertionError(f"process {pid} started nothing")


def test_run_refuses_tensors_that_do_not_fit(agent: AgentProcess) -> None:
    deploy(agent, bundle := EchoBundle())
    spec = {"name": "x", "dtype": "int32", "shape": [2], "offset": 0, "nbytes": 8}
    cases = [
        ({"name": "z"}, f"the inputs are ['z'] (release {bundle.id[:12]} takes ['x'])"),
        ({"dtype": "uint32"}, "input 'x' is uint32 [2]"),
        ({"shape": [1, 2]}, "input 'x' is int32 [1, 2]"),
    ]
    for change, text in cases:
        reply = agent.ask("run", ONE, release="current", tensors=[{**spec, **change}]).meta
        assert reply["code"] == "bad-data"
        assert text in reply["detail"]
    for change in ({"nbytes": 4}, {"offset": 1}, {"shape": [1 << 40]}, {"dtype": "object"}):
        reply = agent.ask("run", ONE, release="current", tensors=[{**spec, **change}]).meta
        assert reply["code"] == "bad-request"
        assert reply["detail"].startswith("cannot read the tensors: tensor 'x'")


def test_only_the_runtimes_that_were_named_are_probed(agent: AgentProcess) -> None:
    facts = agent.ask("facts", runtimes=["echo", "quantum"]).meta["facts"]
    assert set(facts["runtimes"]) == {"echo", "quantum"}
    assert facts["runtimes"]["echo"]["version"]
    assert facts["runtimes"]["quantum"]["why"] == "this agent knows no runtime 'quantum'"
    reply = agent.ask("facts", runtimes="echo").meta
    assert reply["code"] == "bad-request"
    assert "runtimes is 'echo' (expected true, false or a list of names)" in reply["detail"]


def test_conversation_that_cannot_answer_any_more_ends(agent_modules: Any) -> None:
    serve = agent_modules("edge_agent.serve")
    numbers = iter(range(1, 1000))

    def read() -> bytes:
        time.sleep(0.01)
        return encode_frame(Frame({"op": "status", "id": next(numbers)}))

    def write(data: bytes) -> None:
        raise BrokenPipeError

    talk = serve.Conversation(
        None, read=read, write=write, answer=lambda *_: Frame({"id": 1, "ok": True})
    )
    talk.serve()
    assert next(numbers) < 900, "a reader that went on would swallow every later request"
