"""The promises of the contract on a device of yours: `pytest -m hardware --device NAME`.

The device's own current release is put back at the end, by rolling back to it.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from edgesdk.deploy import deploy_bundle, rollback, run_on_device
from edgesdk.devices import Device, Session, connect, read_facts, read_status, resolve_device
from edgesdk.testing import make_echo_bundle

pytestmark = [pytest.mark.hardware, pytest.mark.timeout(1800)]


@pytest.fixture
def device(request: pytest.FixtureRequest) -> Device:
    name = request.config.getoption("--device")
    if name is None:
        pytest.skip(
            "needs a real device: pass --device with a URL or a name from the inventory"
        )
    return resolve_device(name)


@pytest.fixture
def session(device: Device) -> Iterator[Session]:
    with connect(device) as opened:
        yield opened


def test_the_device_says_what_it_is(session: Session) -> None:
    facts = read_facts(session)
    assert facts["machine"]
    assert int(facts["cpu_count"]) >= 1
    assert tuple(map(int, session.hello.python.split(".")[:2])) >= (3, 7)


def test_bytes_of_every_value_go_there_and_back_and_the_release_before_returns(
    session: Session, device: Device, tmp_path: Path
) -> None:
    before = read_status(session)["slots"]["current"]
    vector = bytes(range(256)) * 64
    bundle = make_echo_bundle(tmp_path / "echo", vector=vector)
    receipt = deploy_bundle(bundle, session, device=device)
    assert receipt.slot == "current"
    assert receipt.self_check.passed
    (name,) = [value["name"] for value in bundle.manifest["inputs"]]
    asked = np.frombuffer(vector, dtype=np.uint8)
    outputs, timing = run_on_device(session, "current", {name: asked})
    assert next(iter(outputs.values())).tobytes() == vector
    assert timing.run_ms >= 0
    again = deploy_bundle(bundle, session, device=device)
    assert again.blobs_sent == 0
    if before is not None:
        rollback(session)
        assert read_status(session)["slots"]["current"]["bundle"] == before["bundle"]
