"""The same zipapp on real interpreters from 3.7 to 3.13, isolated and without site-packages."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import edgesdk
from tests.agent.agent_driver import ONE, EchoBundle, Start, deploy, push


def test_deploys_runs_measures_and_rolls_back(python: str, start: Start) -> None:
    agent = start(python=python)
    assert python.endswith(".".join(agent.hello["python"].split(".")[:2]))
    first, second = EchoBundle(b"first", parts=2), EchoBundle(b"second")
    deploy(agent, first)
    deploy(agent, second)
    tensors = [{"name": "x", "dtype": "int32", "shape": [2], "offset": 0, "nbytes": 8}]
    reply = agent.ask("run", ONE[::-1], release="current", tensors=tensors)
    assert reply.meta["ok"], reply
    assert reply.body == ONE[::-1]
    spec = {"warmup_runs": 3, "runs": 50, "duration_s": None, "threads": None, "fresh": True}
    bench = agent.ask("bench", release=first.id, spec=spec)
    assert bench.meta["runs"] == 50
    assert len(bench.body) == 8 * 50
    assert [part["index"] for part in bench.meta["parts"]] == [0, 1]
    assert bench.meta["cold_start_ms"] > bench.meta["load_ms"] > 0
    assert bench.meta["peak_rss_bytes"] > 1 << 20
    slots = agent.ask("rollback").meta["slots"]
    assert slots["current"]["bundle"] == first.id
    assert slots["previous"]["bundle"] == second.id
    assert agent.hang_up() == 0


def test_worker_under_this_python_names_its_signal(python: str, start: Start) -> None:
    agent = start(python=python)
    bundle = EchoBundle(options={"die": "SIGSEGV"})
    push(agent, bundle)
    reply = agent.ask("check", bundle=bundle.id).meta
    assert reply["code"] == "worker-died"
    assert reply["detail"] == "the worker ended by SIGSEGV while running the model"
    assert reply["facts"]["signal"] == "SIGSEGV"


def test_missing_runtime_is_named_with_what_a_wheel_must_fit(python: str, start: Start) -> None:
    agent = start("--python", python, python=python, env={"PYTHONNOUSERSITE": "1"})
    bundle = EchoBundle(runtime="openvino")
    push(agent, bundle)
    reply = agent.ask("check", bundle=bundle.id).meta
    assert reply["code"] == "no-runtime", reply
    assert "openvino is not installed for Python 3." in reply["detail"]
    facts = reply["facts"]
    assert facts["runtime"] == "openvino"
    assert facts["python_executable"] == python
    assert {"why", "machine", "libc", "python"} <= facts.keys()


def test_version_status_and_facts_print_json(python: str, agent_pyz: Path, state: Path) -> None:
    def run(*arguments: str) -> dict[str, object]:
        command = [python, "-I", "-S", str(agent_pyz), *arguments]
        done = subprocess.run(command, capture_output=True, timeout=30, check=True)
        document: dict[str, object] = json.loads(done.stdout)
        return document

    assert run("version")["version"] == edgesdk.__version__
    status = run("status", "--state", str(state))
    assert status["slots"] == {"current": None, "previous": None, "candidate": None}
    facts = run("facts", "--state", str(state))["facts"]
    assert isinstance(facts, dict)
    assert facts["state_dir"] == str(state)
    assert facts["cpu_count"] >= 1
