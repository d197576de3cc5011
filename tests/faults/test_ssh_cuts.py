"""SSH connections that are cut at a random byte: the next push goes on from there."""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgesdk.deploy import deploy_bundle
from edgesdk.devices import connect, read_status, resolve_device
from edgesdk.errors import LinkError
from edgesdk.testing import LocalSshd, make_echo_bundle
from tests.faults.cut_relay import CutRelay

PART_BYTES = 6 << 20
#: What may be sent again: a channel's window, and what SSH and the log-in add.
AGAIN_BYTES = (2 << 20) + (256 << 10)


@pytest.fixture
def sshd(tmp_path: Path) -> Iterator[LocalSshd]:
    if (reason := LocalSshd.why_not()) is not None:
        pytest.skip(f"needs an SSH server: {reason}")
    with LocalSshd(tmp_path / "sshd") as server:
        yield server


def run_cuts(count: int, sshd: LocalSshd, folder: Path, home: Path, *, seed: int) -> int:
    """Cut so many pushes; give how many the cut came in time for."""
    dice = random.Random(seed)
    in_time = 0
    with CutRelay(sshd.port) as relay:
        line = sshd.host_line().replace(f":{sshd.port} ", f":{relay.port} ")
        (home / ".ssh" / "known_hosts").write_text(line)
        url = sshd.url(state=folder / "state", python=sys.executable)
        device = resolve_device(url.replace(f":{sshd.port}?", f":{relay.port}?"))

        def deploy(number: int) -> str:
            path = folder / f"bundle-{number}"
            bundle = make_echo_bundle(
                path, name=f"release-{number}", part=dice.randbytes(PART_BYTES)
            )
            with connect(device) as session:
                deploy_bundle(bundle, session, device=device)
            return bundle.id

        deploy(0)
        relay.start_over(cut_at=None)
        old = deploy(1)
        whole_bytes = relay.to_device_bytes
        assert whole_bytes > PART_BYTES
        for number in range(2, count + 2):
            path = folder / f"bundle-{number}"
            new = make_echo_bundle(
                path, name=f"release-{number}", part=dice.randbytes(PART_BYTES)
            )
            cut_at = dice.randrange(1, int(1.02 * whole_bytes))
            relay.start_over(cut_at=cut_at)
            told = False
            try:
                with connect(device) as session:
                    deploy_bundle(new, session, device=device)
                    told = True
            except LinkError:
                in_time += 1
            relay.start_over(cut_at=None)
            with connect(device) as session:
                current = read_status(session)["slots"]["current"]["bundle"]
                assert current in ({new.id} if told else {old, new.id})
                receipt = deploy_bundle(new, session, device=device)
                assert receipt.slot == "current"
                old = read_status(session)["slots"]["current"]["bundle"]
                assert old == new.id
                session.request("gc", {})
            again = relay.to_device_bytes - max(0, whole_bytes - cut_at)
            assert again <= AGAIN_BYTES, f"cut at {cut_at}: {again} bytes were sent again"
    return in_time


@pytest.mark.slow
def test_a_few_cut_pushes_go_on_where_they_stopped(
    sshd: LocalSshd, tmp_path: Path, home: Path
) -> None:
    assert run_cuts(3, sshd, tmp_path, home, seed=4) >= 1


@pytest.mark.faults
@pytest.mark.timeout(3600)
def test_two_hundred_cut_pushes_go_on_where_they_stopped(
    sshd: LocalSshd, tmp_path: Path, home: Path
) -> None:
    in_time = run_cuts(200, sshd, tmp_path, home, seed=200)
    print(f"\n200 cuts, {in_time} of them in a push")
    assert in_time >= 150
