"""Benchmarks through the packed agent: what is asked for reaches the worker; what it costs."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.agent import agent_driver
from tests.agent.agent_driver import AgentProcess, EchoBundle, Start, deploy, push

#: What the agent may hold without a worker; issue and README promise it.
MOST_RSS_BYTES = 25_000_000
#: Of one core, what looking at the conditions may take.
MOST_SAMPLING = 0.005


def bench(agent: AgentProcess, bundle: EchoBundle, **spec: Any) -> Any:
    return agent.ask("bench", release=bundle.id, spec={"runs": 20, **spec})


def loaded(agent: AgentProcess, **options: Any) -> EchoBundle:
    push(agent, bundle := EchoBundle(options=options))
    return bundle


OLDEST_AND_NEWEST = pytest.mark.parametrize(
    "python", [agent_driver.VERSIONS[0], agent_driver.VERSIONS[-1]], indirect=True
)


@OLDEST_AND_NEWEST
def test_every_scenario_is_made_on_every_python(start: Start, python: str) -> None:
    agent = start(python=python)
    bundle = loaded(agent, delay_ms=1)
    plain = bench(agent, bundle, settle=True, until=0.5, duration_s=2.0, around=True).meta
    assert plain["stopped"] == "interval"
    assert plain["runs"] >= 60
    assert plain["warm_up"]["settle"] is True
    assert plain["around"]["calls_ns"] >= 1e6
    assert plain["around"]["odd"] == {}
    streams = bench(agent, bundle, streams=3).meta
    assert sum(streams["scenario"]["runs_by_stream"]) == streams["runs"] >= 20
    batch = bench(agent, bundle, batch=4)
    assert int.from_bytes(batch.body[:8], "little") >= 4e6 or batch.meta["one_call"]
    served = bench(agent, bundle, runs=0, rate_per_s=200.0, duration_s=0.3).meta
    assert served["stopped"] == "time"
    assert served["scenario"]["service_ns"] >= 1e6


def test_events_carry_samples_and_conditions(agent: AgentProcess) -> None:
    bundle = loaded(agent, delay_ms=20)
    reply = bench(agent, bundle, runs=0, duration_s=1.4)
    live = [event["live"] for event in agent.talk.events if event.get("live")]
    assert [each["phase"] for each in live if "phase" in each] == ["counted", "over"]
    recent = [ns for each in live for ns in each.get("recent_ns", [])]
    assert 0.5 * reply.meta["runs"] <= len(recent) <= reply.meta["runs"]
    assert any("conditions" in each for each in live)


def test_a_worker_stays_on_its_processors(agent: AgentProcess) -> None:
    cpu = max(os.sched_getaffinity(0))
    bundle = loaded(agent)
    reply = bench(agent, bundle, cpus=[cpu])
    assert reply.meta["ok"]
    assert reply.meta["conditions"]["static"]["cpus_measured_on"] == [cpu]
    refused = bench(agent, bundle, cpus=[cpu, 900]).meta
    assert refused["code"] == "bad-request"
    assert "there is no cpu 900 for the agent here" in refused["detail"]
    assert refused["facts"]["option"] == "cpus"


@pytest.mark.parametrize(
    "spec",
    [
        {"until": "1%"},
        {"until": 2},
        {"streams": 0},
        {"streams": 1000},
        {"batch": -1},
        {"rate_per_s": float("1e9")},
        {"cpus": []},
        {"cpus": "0"},
        {"cpus": [True]},
        {"seed": -1},
        {"settle": 1},
        {"patience_s": [1]},
    ],
)
def test_a_spec_that_makes_no_sense_is_refused(
    agent: AgentProcess, spec: dict[str, Any]
) -> None:
    bundle = loaded(agent)
    reply = bench(agent, bundle, **spec).meta
    assert reply["ok"] is False
    assert reply["code"] == "bad-request"
    assert next(iter(spec)) in reply["detail"]


def rss_bytes(pid: int) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    raise AssertionError("the kernel does not tell")


@OLDEST_AND_NEWEST
def test_an_agent_without_a_worker_is_small(start: Start, python: str) -> None:
    """After everything that a host does with it: a deployment, a benchmark, what ran where."""
    daemon = start(command="run", greet=False, python=python)
    assert daemon.process.stderr is not None
    assert daemon.process.stderr.readline() == b"edge-agent: ready\n"
    host = start(python=python)
    deploy(host, bundle := EchoBundle(b"small", options={"delay_ms": 1}))
    assert bench(host, bundle, runs=0, duration_s=0.6).meta["ok"]
    assert host.ask("profile", release=bundle.id, runs=2).meta["ok"]
    assert host.ask("unload").meta["ok"]
    assert host.ask("status").meta["agent"]["pid"] == daemon.process.pid
    held = rss_bytes(daemon.process.pid)
    sys.stdout.write(f"\n{Path(python).name}: {held / 1e6:.1f} MB without a worker\n")
    assert held < MOST_RSS_BYTES


def test_looking_at_the_conditions_costs_little(agent: AgentProcess) -> None:
    bundle = loaded(agent, delay_ms=5)
    conditions = bench(agent, bundle, runs=0, duration_s=3.0).meta["conditions"]
    assert len(conditions["samples"]) >= 4
    assert 0 < conditions["cpu_share"] < MOST_SAMPLING
