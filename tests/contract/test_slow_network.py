"""The slow network is as slow as it says, or no figure that was taken over it counts."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import pytest

from edgesdk.testing import SlowNetwork

if (reason := SlowNetwork.why_not()) is not None:
    pytest.skip(f"needs network namespaces: {reason}", allow_module_level=True)

SERVER = """
import socket, sys
with socket.create_server((sys.argv[1], 7000)) as listener:
    print("ready", flush=True)
    while True:
        connection, _ = listener.accept()
        with connection:
            while connection.recv(1 << 20):
                pass
            connection.sendall(b"all")
"""
CLIENT = """
import socket, sys, time
size = int(sys.argv[2])
begun = time.monotonic()
with socket.create_connection((sys.argv[1], 7000)) as link:
    connected = time.monotonic()
    link.sendall(bytes(size))
    link.shutdown(socket.SHUT_WR)
    link.recv(3)
print(connected - begun, time.monotonic() - connected)
"""


@pytest.fixture
def network(request: pytest.FixtureRequest) -> Iterator[SlowNetwork]:
    with SlowNetwork(**request.param) as found:
        command = found.far([sys.executable, "-c", SERVER, found.far_address])
        with subprocess.Popen(command, stdout=subprocess.PIPE) as server:
            assert server.stdout is not None
            assert server.stdout.readline() == b"ready\n"
            yield found
            server.terminate()


def times(network: SlowNetwork, size: int) -> tuple[float, float]:
    command = network.near([sys.executable, "-c", CLIENT, network.far_address, str(size)])
    said = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
    return float(said[0]), float(said[1])


@pytest.mark.parametrize("network", [{"round_trip_s": 0.1}], indirect=True)
def test_packet_and_its_answer_take_the_round_trip(network: SlowNetwork) -> None:
    least = min(times(network, 0)[0] for _ in range(5))
    assert 0.1 <= least < 0.15


@pytest.mark.parametrize(
    "network", [{"round_trip_s": 0.01, "bits_per_s": 20e6, "loss": 0.001}], indirect=True
)
def test_paced_link_carries_no_more_than_its_rate(network: SlowNetwork) -> None:
    size = 2_500_000
    assert times(network, size)[1] >= 0.9 * size * 8 / 20e6


def test_two_hosts_see_each_other_alone() -> None:
    with SlowNetwork(round_trip_s=0.0) as network:
        command = network.near(["ip", "-o", "link"])
        said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert len(said.splitlines()) == 2, "loopback and the link"
