"""What an application pays for asking the agent: a request against the bare runtime loop."""

from __future__ import annotations

import contextlib
import http.client
import importlib
import json
import os
import random
import socket
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgesdk.deploy import deploy_bundle
from edgesdk.devices import connect, resolve_device
from edgesdk.tensors import unpack_tensors
from tests.perf.test_bare_loops import bare_block, build, interval

pytestmark = pytest.mark.perf

BLOCKS = 40
BLOCK_MS = 50
#: A request may cost this much more than the runtime's own call, in microseconds. It passes
#: through three processes, so the fastest tenth is looked at, where nobody got in between.
MOST_US = 1000
Block = Callable[[int], list[int]]


@contextlib.contextmanager
def daemon(agent_pyz: Path, state: Path, port: int) -> Iterator[None]:
    import subprocess

    line = [sys.executable, str(agent_pyz), "run", "--state", str(state), "--serve"]
    with subprocess.Popen(
        [*line, "--http", f"127.0.0.1:{port}"], stderr=subprocess.PIPE
    ) as process:
        assert process.stderr is not None
        assert process.stderr.readline() == b"edge-agent: ready\n"
        yield
        process.terminate()


def timed(ask: Callable[[], object]) -> Block:
    def block(runs: int) -> list[int]:
        samples = []
        for _ in range(runs):
            start = time.perf_counter_ns()
            ask()
            samples.append(time.perf_counter_ns() - start)
        return samples

    return block


@contextlib.contextmanager
def http_block(port: int, feeds: dict[str, np.ndarray[Any, Any]]) -> Iterator[Block]:
    link = http.client.HTTPConnection("127.0.0.1", port)
    ((name, value),) = feeds.items()
    record = {"name": name, "shape": list(value.shape), "datatype": "FP32"}
    record["parameters"] = {"binary_data_size": value.nbytes}
    text = json.dumps({"inputs": [record], "parameters": {"binary_data_output": True}}).encode()
    body = text + value.tobytes()
    headers = {"Inference-Header-Content-Length": str(len(text))}

    def ask() -> None:
        link.request("POST", "/v2/models/current/infer", body, headers)
        reply = link.getresponse()
        reply.read()
        assert reply.status == 200

    yield timed(ask)
    link.close()


@pytest.mark.timeout(600)
def test_request_over_the_socket_costs_little(
    agent_pyz: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(agent_pyz)  # as an application does
    client_module = importlib.import_module("edge_agent.client")
    bundle = build(tmp_path / "bundle", "fp32")
    state = tmp_path / "state"
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    device = resolve_device(f"local:?state={state}", inventory=None)
    with connect(device, timeout_s=30) as session:
        deploy_bundle(bundle, session, device=device, profile=None)
    check = bundle.manifest["checks"][0]
    body = bundle.blob_path(check["blob"]["sha256"]).read_bytes()
    feeds = unpack_tensors(check["inputs"], body)
    with (
        daemon(agent_pyz, state, port),
        client_module.Client(str(state)) as client,
        bare_block(bundle, tmp_path) as bare,
        http_block(port, feeds) as over_http,
    ):
        client.infer(feeds)
        arms = {
            "bare": bare,
            "socket": timed(lambda: client.infer(feeds)),
            "http": over_http,
        }
        warm = {name: statistics.median(arm(50)[10:]) for name, arm in arms.items()}
        found: dict[str, dict[str, list[float]]] = {"median": {}, "undisturbed": {}}
        dice = random.Random(1)
        for _ in range(BLOCKS):
            for name in dice.sample(list(arms), len(arms)):
                runs = max(5, round(BLOCK_MS * 1e6 / warm[name]))
                samples = sorted(arms[name](runs + 1)[1:])
                found["median"].setdefault(name, []).append(statistics.median(samples))
                found["undisturbed"].setdefault(name, []).append(samples[len(samples) // 10])
    more_us = {}
    for kind, blocks in found.items():
        for name in ("socket", "http"):
            pairs = list(zip(blocks[name], blocks["bare"], strict=True))
            ratio, low, high = interval([asked / loop for asked, loop in pairs])
            more_us[kind, name] = statistics.median(asked - loop for asked, loop in pairs) / 1e3
            alone_us = statistics.median(blocks["bare"]) / 1e3
            sys.stdout.write(
                f"\n{kind} {name}: bare runtime {alone_us:.0f} us, "
                f"asked {ratio:.2f} [{low:.2f}, {high:.2f}] times as long, "
                f"{more_us[kind, name]:.0f} us more\n"
            )
    load, processors = os.getloadavg()[0], os.cpu_count() or 1
    if load > 1.5 * processors:
        pytest.skip(f"void: others keep the {processors} processors busy (load {load:.1f})")
    assert more_us["undisturbed", "socket"] <= MOST_US
