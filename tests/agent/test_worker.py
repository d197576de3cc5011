"""Workers that crash, hang or refuse are answers; the agent and the current release live on."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.agent.agent_driver import (
    AgentProcess,
    EchoBundle,
    Start,
    current,
    deploy,
    push,
    wait_until_gone,
)

GOOD = EchoBundle(b"good")


def refused(agent: AgentProcess, options: dict[str, Any], **meta: Any) -> dict[str, Any]:
    deploy(agent, GOOD)
    push(agent, bundle := EchoBundle(options=options))
    reply = agent.ask("check", bundle=bundle.id, **meta).meta
    assert reply["ok"] is False
    assert current(agent) == GOOD.id
    assert agent.ask("check", bundle=GOOD.id, force=True).meta["passed"]
    return reply


def test_interpreter_of_workers_is_found_from_where_the_agent_was_started(start: Start) -> None:
    agent = start("--python", os.path.relpath(sys.executable))
    deploy(agent, GOOD)
    assert agent.ask("facts").meta["facts"]["worker_python"] == os.path.abspath(sys.executable)


def test_a_fallback_says_nothing_of_what_is_the_part_s_own(agent: AgentProcess) -> None:
    bundle = EchoBundle(b"served by a fallback")
    (part,) = bundle.manifest["parts"]
    claims = {"outputs": [{**part["outputs"][0], "name": "z"}], "sha256": ["0" * 64]}
    part["runtime"] = "nobody"
    part["fallbacks"] = [{"backend": "e", "runtime": "echo", "options": {}, **claims}]
    push(agent, bundle)
    reply = agent.ask("check", bundle=bundle.id).meta
    assert reply.get("passed"), reply
    assert reply["runtimes"][0]["runtime"] == "echo"


@pytest.mark.parametrize("name", ["SIGSEGV", "SIGABRT", "SIGILL", "SIGBUS", "SIGFPE"])
def test_crash_names_its_signal(agent: AgentProcess, name: str) -> None:
    reply = refused(agent, {"die": name})
    assert reply["code"] == "worker-died"
    assert reply["facts"]["signal"] == name


def test_kill_from_outside_asks_about_memory(agent: AgentProcess) -> None:
    reply = refused(agent, {"die": "SIGKILL"})
    assert "by SIGKILL, which nobody here sent: is memory short?" in reply["detail"]


def test_crash_while_loading_says_which_part(agent: AgentProcess) -> None:
    reply = refused(agent, {"load_die": "SIGSEGV"})
    assert reply["detail"] == "the worker ended by SIGSEGV while loading part 0 with echo"


def test_last_words_of_a_crashed_worker_are_kept(agent: AgentProcess) -> None:
    reply = refused(agent, {"print": "free(): invalid pointer", "die": "SIGABRT"})
    assert reply["facts"]["stderr"] == "free(): invalid pointer"


def test_slow_worker_is_killed_at_its_limit(agent: AgentProcess) -> None:
    reply = refused(agent, {"delay_ms": 60_000}, timeout_s=0.8)
    assert reply["code"] == "worker-timeout"
    assert reply["facts"]["timeout_s"] == 0.8
    assert reply["detail"] == (
        "the worker was killed while running the model: all of it took longer than 0.8 s"
    )


def test_slow_loading_is_killed_at_its_limit(agent: AgentProcess) -> None:
    reply = refused(agent, {"load_delay_ms": 60_000}, timeout_s=1.5)
    assert reply["code"] == "worker-timeout"
    assert "loading part 0 with echo took longer than 1.5 s" in reply["detail"]


def test_what_the_runtime_says_is_passed_on(agent: AgentProcess) -> None:
    reply = refused(agent, {"fail": "op Foo is not supported"})
    assert (reply["code"], reply["detail"]) == ("worker-failed", "op Foo is not supported")
    reply = refused(agent, {"load_fail": "op Bar is not supported"})
    assert reply["detail"] == "echo cannot load part 0: op Bar is not supported"


def test_runtime_unknown_to_the_agent_is_named(agent: AgentProcess) -> None:
    push(agent, bundle := EchoBundle(runtime="quantum"))
    reply = agent.ask("check", bundle=bundle.id).meta
    assert reply["code"] == "no-runtime"
    assert reply["facts"]["runtime"] == "quantum"
    assert "this agent knows no runtime 'quantum'" in reply["detail"]


def test_interpreter_that_is_not_there_is_named(start: Start) -> None:
    agent = start("--python", "/nowhere/python3")
    push(agent, GOOD)
    reply = agent.ask("check", bundle=GOOD.id).meta
    assert reply["code"] == "no-runtime"
    assert "cannot start /nowhere/python3 for the worker: No such file" in reply["detail"]


def test_worker_that_outgrows_its_memory_limit_is_an_answer(start: Start) -> None:
    limit = {"EDGE_AGENT_WORKER_MEMORY_BYTES": str(400 << 20)}
    agent = start(env=limit)
    push(agent, bundle := EchoBundle(options={"allocate_mib": 900}))
    reply = agent.ask("check", bundle=bundle.id).meta
    assert reply["code"] == "worker-failed"
    assert "echo cannot load part 0: MemoryError" in reply["detail"]


def test_worker_is_kept_for_the_next_request_and_freed_by_unload(agent: AgentProcess) -> None:
    deploy(agent, GOOD)
    first = agent.ask("status").meta["worker"]
    assert first["bundle"] == GOOD.id
    assert first["rss_bytes"] > 1 << 20
    spec = {"runs": 5, "warmup_runs": 0}
    bench = agent.ask("bench", release="current", spec=spec).meta
    assert bench["cold_start_ms"] is None
    assert bench["load_ms"] is None
    assert agent.ask("status").meta["worker"]["pid"] == first["pid"]
    assert agent.ask("unload").meta["ok"]
    assert agent.ask("status").meta["worker"] is None
    wait_until_gone(first["pid"])


def test_worker_killed_between_requests_is_replaced(agent: AgentProcess) -> None:
    deploy(agent, GOOD)
    for _ in range(10):
        worker = agent.ask("status").meta["worker"]["pid"]
        os.kill(worker, signal.SIGKILL)  # and at once, while it may still look alive
        assert agent.ask("check", bundle=GOOD.id, force=True).meta["passed"]


def test_what_a_library_started_ends_with_a_killed_agent(start: Start, tmp_path: Path) -> None:
    script, noted = tmp_path / "python", tmp_path / "pid"
    script.write_text(f'#!/bin/sh\nsleep 600 &\necho $! >{noted}\nexec {sys.executable} "$@"\n')
    script.chmod(0o755)
    agent = start("--python", str(script))
    deploy(agent, GOOD)
    worker = agent.ask("status").meta["worker"]["pid"]
    agent.kill()
    wait_until_gone(worker)
    wait_until_gone(int(noted.read_text()))


def test_benchmark_stops_at_its_duration(agent: AgentProcess) -> None:
    deploy(agent, bundle := EchoBundle(options={"delay_ms": 5}))
    spec = {"runs": 0, "duration_s": 0.7, "warmup_runs": 2, "sample_conditions": True}
    reply = agent.ask("bench", release=bundle.id, spec=spec)
    assert 10 <= reply.meta["runs"] <= 140
    assert len(reply.body) == 8 * reply.meta["runs"]
    assert 0.7 <= reply.meta["wall_s"] < 5
    samples = reply.meta["conditions"]["samples"]
    assert len(samples) >= 2
    wanted = {"t_s", "cpu_mhz", "governor", "temp_c", "load1", "others_cpu", "throttled"}
    wanted |= {"mem_available_bytes", "swap_used_bytes"}
    assert set(samples[0]) == wanted
    nanoseconds = int.from_bytes(reply.body[:8], "little")
    assert 5_000_000 <= nanoseconds < 1_000_000_000


def test_benchmark_stops_at_its_runs_when_they_come_first(agent: AgentProcess) -> None:
    deploy(agent, GOOD)
    spec = {"runs": 100_000, "duration_s": 30, "warmup_runs": 0, "sample_conditions": False}
    reply = agent.ask("bench", release="current", spec=spec)
    assert reply.meta["runs"] == 100_000
    assert len(reply.body) == 800_000
    assert reply.meta["conditions"]["samples"] == []
    assert reply.meta["parts"] == [
        {
            "index": 0,
            "backend": "echo-cpu",
            "runtime": "echo",
            "median_ms": reply.meta["parts"][0]["median_ms"],
            "share": 1.0,
        }
    ]


@pytest.mark.parametrize(
    ("spec", "text"),
    [
        (None, "spec is missing"),
        ({}, "spec names neither runs nor duration_s"),
        ({"runs": -1}, "runs is -1 (expected an integer from 0 to 4194304)"),
        ({"runs": 1 << 40}, "expected an integer from 0 to 4194304"),
        ({"runs": 1, "duration_s": "3"}, "duration_s is '3' (expected a number)"),
        ({"runs": 1, "threads": 1.5}, "threads is 1.5"),
        ({"runs": 1, "fresh": 1}, "fresh is 1 (expected true or false)"),
    ],
)
def test_benchmark_spec_is_checked(agent: AgentProcess, spec: object, text: str) -> None:
    deploy(agent, GOOD)
    reply = agent.ask("bench", release="current", spec=spec).meta
    assert reply["code"] == "bad-request"
    assert text in reply["detail"]


def test_scratch_of_an_earlier_agent_is_cleaned(start: Start, state: Path) -> None:
    start().hang_up()
    (state / "scratch" / "core").write_bytes(b"x" * 100)
    start()
    assert list((state / "scratch").iterdir()) == []
