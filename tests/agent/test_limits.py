"""What a worker may take: memory, time, niceness and the network, on every Python."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edgesdk.wire.manifest import ManifestError, load_manifest
from tests.agent.agent_driver import ONE, EchoBundle, Start, push

ROOT = Path(__file__).parents[2]
TENSORS = [{"name": "x", "dtype": "int32", "shape": [2], "offset": 0, "nbytes": 8}]
TRY_SOCKETS = """
import errno, socket, subprocess, sys
from edge_agent.confine import close_network
if not close_network():
    print("open"); sys.exit()
for family in (socket.AF_INET, socket.AF_INET6, 17, 40):
    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM, 3):
        try:
            socket.socket(family, kind)
        except OSError as exc:
            if exc.errno != errno.EACCES:
                print("odd", family, kind, exc)
        else:
            print("let through", family, kind)
socket.socket(socket.AF_UNIX).close()
a, b = socket.socketpair()
child = "import socket; socket.socket()"
done = subprocess.run([sys.executable, "-c", child], stderr=subprocess.PIPE)
print("child", done.returncode, b"Permission" in done.stderr)
"""


def limited(data: bytes = b"model", **limits: Any) -> EchoBundle:
    bundle = EchoBundle(data, options=limits.pop("options", None))
    bundle.manifest["limits"] = limits
    return bundle


def test_worker_cannot_open_network_sockets_nor_what_it_starts(python: str) -> None:
    code = f"import sys; sys.path[:0] = {[str(ROOT / 'device_agents'), str(ROOT)]!r}\n"
    done = subprocess.run(
        [python, "-c", code + TRY_SOCKETS],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    if done.stdout == "open\n":
        pytest.skip("this kernel lets an ordinary user filter no calls (seccomp)")
    assert done.stdout == "child 1 True\n"


def test_device_keeps_to_the_limits_of_a_bundle(start: Start) -> None:
    agent = start()
    bundle = limited(memory_bytes=1 << 30, niceness=7, run_s=30.0)
    push(agent, bundle)
    assert agent.ask("check", bundle=bundle.id).meta["passed"]
    worker = agent.ask("status").meta["worker"]
    shown = {key: worker["limits"][key] for key in ("memory_bytes", "niceness", "run_s")}
    assert shown == {"memory_bytes": 1 << 30, "niceness": 7, "run_s": 30.0}
    assert worker["limits"]["network"] in ("closed", "open")
    process = Path(f"/proc/{worker['pid']}")
    rows = (process / "limits").read_text().splitlines()
    (space,) = (row for row in rows if row.startswith("Max address space"))
    assert space.split()[3] == str(1 << 30)
    assert (process / "stat").read_text().rpartition(")")[2].split()[16] == "7"
    status = (process / "status").read_text()
    assert "NoNewPrivs:\t1" in status
    if worker["limits"]["network"] == "closed":
        assert "Seccomp:\t2" in status


def test_worker_that_takes_more_memory_dies_alone(start: Start) -> None:
    agent = start()
    bundle = limited(memory_bytes=256 << 20, options={"allocate_mib": 1024})
    push(agent, bundle)
    reply = agent.ask("check", bundle=bundle.id).meta
    assert reply["code"] in ("worker-failed", "worker-died"), reply
    assert "MemoryError" in reply["detail"]
    assert agent.ask("status").meta["ok"]


def test_inference_that_takes_longer_is_ended(start: Start) -> None:
    agent = start()
    bundle = limited(run_s=0.2, options={"delay_ms": 5000})
    push(agent, bundle)
    reply = agent.ask("check", bundle=bundle.id, timeout_s=60).meta
    assert reply["code"] == "worker-timeout", reply
    assert "took longer than 0.2 s" in reply["detail"]
    ask: dict[str, Any] = {"release": bundle.id, "tensors": TENSORS, "timeout_s": 60}
    assert agent.ask("run", ONE, **ask).meta["code"] == "worker-timeout"


def test_stricter_of_bundle_and_device_counts(
    agent_modules: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    limits_of = agent_modules("edge_agent.limits").limits_of
    monkeypatch.setenv("EDGE_AGENT_WORKER_MEMORY_BYTES", str(512 << 20))
    for asked in (256 << 20, 1 << 30):
        found = limits_of({"limits": {"memory_bytes": asked}})
        assert found["memory_bytes"] == min(asked, 512 << 20)


@pytest.mark.parametrize(
    ("limits", "why"),
    [
        ([], "limits is []"),
        ({"memory": 1}, "limits.memory is not known (only memory_bytes, niceness, run_s)"),
        ({"network": True}, "limits.network is not known"),
        ({"memory_bytes": 1024}, "limits.memory_bytes is 1024"),
        ({"memory_bytes": 1 << 60}, "expected 67108864 to"),
        ({"memory_bytes": 1e9}, "limits.memory_bytes is 1000000000.0"),
        ({"niceness": -20}, "limits.niceness is -20 (expected 0 to 19)"),
        ({"niceness": True}, "limits.niceness is True"),
        ({"run_s": 0}, "limits.run_s is 0"),
        ({"run_s": "1"}, "limits.run_s is '1'"),
    ],
)
def test_limits_that_make_no_sense_are_refused(limits: Any, why: str) -> None:
    bundle = EchoBundle()
    bundle.manifest["limits"] = limits
    with pytest.raises(ManifestError) as caught:
        load_manifest(
            json.dumps(bundle.manifest, sort_keys=True, separators=(",", ":")).encode()
        )
    assert why in str(caught.value)


def test_memory_below_the_parts_or_for_a_reserving_runtime_is_refused() -> None:
    def why(bundle: EchoBundle) -> str:
        with pytest.raises(ManifestError) as caught:
            assert bundle.data
        return str(caught.value)

    small = limited(memory_bytes=64 << 20)
    small.manifest["parts"][0]["files"][0]["bytes"] = 64 << 20
    assert "the parts alone have 67108864 bytes" in why(small)
    reserving = limited(memory_bytes=1 << 30)
    reserving.manifest["parts"][0]["runtime"] = "tensorrt"
    assert "reserves far more" in why(reserving)


def test_owner_may_leave_workers_the_network(start: Start) -> None:
    agent = start(env={"EDGE_AGENT_WORKER_NETWORK": "1"})
    bundle = EchoBundle()
    push(agent, bundle)
    agent.ask("check", bundle=bundle.id)
    assert agent.ask("status").meta["worker"]["limits"]["network"] == "open"
