"""A bundle that is there for looking only: it goes again however that ends, never active."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgesdk.bundle import Bundle
from edgesdk.deploy.layers import run_for_a_look
from edgesdk.devices import Session
from edgesdk.errors import LinkError, SelfCheckError, WorkerError
from edgesdk.tensors import pack_tensors
from edgesdk.testing import FakeAgent, ScriptedChannel, make_echo_bundle
from edgesdk.wire import codes
from edgesdk.wire.frames import Frame
from tests.unit.deploy.test_deploy import CHECK, FACTS

Answer = Callable[[Frame], list[Frame | bytes]]


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return make_echo_bundle(tmp_path / "bundle")


def answer(request: Frame) -> list[Frame | bytes]:
    specs, body = pack_tensors({"y": np.arange(64, dtype=np.uint8)})
    meta = {"ok": True, "id": request.meta["id"], "tensors": specs, "run_ms": 1, "parts": []}
    return [Frame(meta, body)]


def looked(
    bundle: Bundle, run: Answer = answer, **replies: Any
) -> tuple[FakeAgent, Callable[[], list[dict[str, np.ndarray]]]]:
    agent = FakeAgent(
        {
            "facts": {"facts": FACTS},
            "stage": {"missing": []},
            "commit": {},
            "check": CHECK,
            "run": run,
            "gc": {"removed": [bundle.id], "freed_bytes": 1, "kept": []},
            **replies,
        }
    )
    channel = ScriptedChannel(agent)
    session = Session(channel, device_name="bench-3", clock=channel.clock)
    samples = [{"x": np.zeros(64, np.uint8), "unused": np.zeros(1)}] * 3
    return agent, lambda: list(run_for_a_look(session, bundle, samples))


def ops(agent: FakeAgent) -> list[str]:
    return [request.meta["op"] for request in agent.requests]


def test_it_is_sent_run_and_removed_and_never_active(bundle: Bundle) -> None:
    agent, look = looked(bundle)
    assert [each["y"][3] for each in look()] == [3, 3, 3]
    assert ops(agent)[-4:] == ["run", "run", "run", "gc"]
    assert "activate" not in ops(agent)
    gone = agent.requests[-1].meta
    assert gone["bundle"] == bundle.id
    # an agent that does not know `bundle` would keep all of this
    assert gone["budget_bytes"] == 1 << 50


def test_it_goes_where_the_worker_dies_half_way(bundle: Bundle) -> None:
    def run(request: Frame) -> list[Frame | bytes]:
        if ops(agent).count("run") < 2:
            return answer(request)
        meta = {"ok": False, "code": codes.WORKER_DIED, "detail": "it died", "facts": {}}
        return [Frame({**meta, "id": request.meta["id"]})]

    agent, look = looked(bundle, run)
    with pytest.raises(WorkerError, match="it died"):
        look()
    assert ops(agent)[-3:] == ["run", "run", "gc"]


def test_it_goes_where_it_does_not_pass_its_check(bundle: Bundle) -> None:
    off = {"name": "y", "within": False, "max_abs_error": 3, "elements": 64}
    failed = {**CHECK, "passed": False, "vectors": [{"index": 0, "outputs": [off]}]}
    agent, look = looked(bundle, check=failed)
    with pytest.raises(SelfCheckError):
        look()
    assert ops(agent)[-1] == "gc"
    assert "run" not in ops(agent)


def test_a_link_that_breaks_is_what_is_said(bundle: Bundle) -> None:
    agent, look = looked(bundle, run=lambda request: [])
    with pytest.raises(LinkError):
        look()
    assert "run" in ops(agent)
