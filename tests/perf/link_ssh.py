"""Pushes over SSH against scp and SFTP: ``python tests/perf/link_ssh.py`` prints the table.

Every arm is a process of its own, timed from its start to its end, so imports, connection,
login, hash and fsync count (scp and SFTP neither hash nor sync). Rounds interleave the arms,
because the machine changes its speed by the minute; ratios are taken within a round, and the
median of them is what counts. One arm runs twice in every round: if its two times disagree, the
run says nothing and is void.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from edgesdk.testing import LocalSshd, SlowNetwork, make_echo_bundle

LANE_ARMS = ("edgesdk, 1 lanes", "edgesdk, 2 lanes")
ARMS = Path(__file__).with_name("link_ssh_arms.py")
MIB = 1 << 20
_SERVER_OPTIONS = ("MaxStartups 100", "Subsystem sftp internal-sftp")
#: Two equal arms may differ by so much, as the median of a run.
EQUAL_WITHIN = 0.10
GCM = ("-c", "aes128-gcm@openssh.com")


class Place:
    """A private SSH server, a payload, and the arms that push it there.

    Args:
        folder: Where everything lies, sources and targets.
        payload_bytes: How large the payload is; it is random, nothing shrinks it.
        network: The network in between; None for loopback.
    """

    def __init__(
        self, folder: Path, payload_bytes: int, *, network: SlowNetwork | None = None
    ) -> None:
        self.folder = folder
        self.payload_bytes = payload_bytes
        self.network = network
        self.server = LocalSshd(folder / "sshd", options=_SERVER_OPTIONS, network=network)
        home = folder / "home" / ".ssh"
        home.mkdir(parents=True)
        (home / "known_hosts").write_text(self.server.known_hosts.read_text())
        rng = random.Random(payload_bytes)
        data = b"".join(rng.randbytes(MIB) for _ in range(payload_bytes // MIB))
        self.bundle = make_echo_bundle(folder / "bundle", part=data)
        self.payload = folder / "payload"
        self.payload.write_bytes(data)
        self.last: dict[str, Any] = {}
        self.pushing_s: list[float] = []

    def url(self, device: int = 0) -> str:
        state = self.folder / f"state-{device}"
        return self.server.url(state=state, python=sys.executable)

    def clear(self) -> None:
        """Take away what earlier arms pushed, and let the disk come to rest."""
        for path in (self.folder / "target").glob("*"):
            path.unlink()
        (self.folder / "target").mkdir(exist_ok=True)
        for state in self.folder.glob("state-*"):
            for name in ("blobs", "staging", "pending", "releases"):
                shutil.rmtree(state / name, ignore_errors=True)
        os.sync()

    def timed(self, command: Sequence[str]) -> float:
        """Run a command on the near host; gives its seconds."""
        self.clear()
        whole = self.network.near(command) if self.network else list(command)
        env = {**os.environ, "HOME": str(self.folder / "home"), "SSH_AUTH_SOCK": ""}
        begun = time.perf_counter()
        done = subprocess.run(whole, env=env, capture_output=True, text=True, check=False)
        seconds = time.perf_counter() - begun
        if done.returncode:
            raise RuntimeError(f"{command[:4]} failed: {done.stderr[-2000:]}")
        self.last = json.loads(done.stdout) if done.stdout.startswith("{") else {}
        return seconds

    # the arms

    def edgesdk(self, lanes: int | None = None) -> float:
        words = ["edgesdk", self.url(), str(self.folder / "bundle"), str(lanes or "")]
        seconds = self.timed([sys.executable, str(ARMS), *words])
        self.pushing_s.append(self.last["push_s"])
        return seconds

    def fleet(self, devices: int) -> float:
        urls = ",".join(self.url(device) for device in range(devices))
        return self.timed(
            [sys.executable, str(ARMS), "fleet", urls, str(self.folder / "bundle")]
        )

    def control(self, requests: int, sizes: Sequence[int]) -> dict[int, list[float]]:
        words = ["control", self.url(), str(requests), ",".join(map(str, sizes))]
        self.timed([sys.executable, str(ARMS), *words])
        return {int(size): times for size, times in self.last["times"].items()}

    def scp(self, *options: str) -> float:
        server = self.server
        target = f"{server.user}@{server.host}:{self.folder}/target/payload"
        common = ["-q", "-F", "/dev/null", "-P", str(server.port), "-i", str(server.key)]
        common += ["-o", f"UserKnownHostsFile={server.known_hosts}"]
        common += ["-o", "StrictHostKeyChecking=yes", "-o", "IdentitiesOnly=yes"]
        return self.timed(["scp", *options, *common, str(self.payload), target])

    def sftp(self) -> float:
        server = self.server
        words = [server.host, str(server.port), server.user, str(server.key)]
        words += [str(self.payload), f"{self.folder}/target/payload"]
        return self.timed([sys.executable, str(ARMS), "sftp", *words])


@contextlib.contextmanager
def place(
    folder: Path | None, payload_bytes: int, *, network: SlowNetwork | None = None
) -> Iterator[Place]:
    """Have a `Place` in a folder of its own, taken away afterwards."""
    with tempfile.TemporaryDirectory(dir=folder, prefix="link-ssh-") as own:
        made = Place(Path(own), payload_bytes, network=network)
        with made.server:
            made.edgesdk()  # the agent is there from now on
            yield made


Arm = Callable[[], float]


class Rounds:
    """Times of several arms in interleaved rounds."""

    #: Of an edgesdk arm, the median of the push without login and start; set where known.
    pushing_s = 0.0

    def __init__(self, arms: dict[str, Arm], rounds: int) -> None:
        self.seconds: dict[str, list[float]] = {name: [] for name in arms}
        names = list(arms)
        for number in range(rounds):
            turned = names[number % len(names) :] + names[: number % len(names)]
            for name in turned:
                self.seconds[name].append(arms[name]())

    def median(self, arm: str) -> float:
        return statistics.median(self.seconds[arm])

    def ratio(self, arm: str, peer: str) -> float:
        """How many times as fast as ``peer`` an arm is: the median of the rounds."""
        pairs = zip(self.seconds[arm], self.seconds[peer], strict=True)
        return statistics.median(theirs / ours for ours, theirs in pairs)

    def why_void(self, one: str, other: str) -> str | None:
        """Say why nothing follows from this run: two equal arms disagree."""
        ratio = self.ratio(one, other)
        if abs(ratio - 1) <= EQUAL_WITHIN:
            return None
        return f"two equal arms differ: {one} is {ratio:.2f} times as fast as {other}"

    def lines(self, payload_bytes: int) -> Iterator[str]:
        for name, seconds in self.seconds.items():
            rates = sorted(payload_bytes / MIB / each for each in seconds)
            yield (
                f"  {name:<22} {statistics.median(rates):7.1f} MiB/s "
                f"({rates[0]:.1f} to {rates[-1]:.1f}), {self.median(name):.2f} s"
            )


def loopback(folder: Path | None, *, payload_bytes: int, rounds: int) -> Rounds:
    """P1 to P3: one push over loopback."""
    with place(folder, payload_bytes) as here:
        arms: dict[str, Arm] = {
            "edgesdk": here.edgesdk,
            "scp gcm": lambda: here.scp(*GCM),
            "scp": here.scp,
            "sftp.put": here.sftp,
            "scp gcm again": lambda: here.scp(*GCM),
        }
        return Rounds(arms, rounds)


def slow(
    folder: Path | None,
    *,
    round_trip_s: float,
    payload_bytes: int,
    rounds: int,
    bits_per_s: float | None = None,
    loss: float = 0.0,
    lanes: Sequence[int] = (),
) -> Rounds:
    """P4 and P5: over a link with a round trip, and perhaps a rate and loss."""
    with (
        SlowNetwork(round_trip_s=round_trip_s, bits_per_s=bits_per_s, loss=loss) as network,
        place(folder, payload_bytes, network=network) as here,
    ):
        arms: dict[str, Arm] = {
            "edgesdk": here.edgesdk,
            "scp gcm": lambda: here.scp(*GCM),
            "scp gcm again": lambda: here.scp(*GCM),
        }
        for count in lanes:
            arms[f"edgesdk, {count} lanes"] = lambda count=count: here.edgesdk(count)  # type: ignore[misc]  # a default binds the loop's value
        found = Rounds(arms, rounds)
        found.pushing_s = statistics.median(here.pushing_s)
        return found


def control(folder: Path | None, *, requests: int) -> dict[int, tuple[float, float]]:
    """P6: the median and the 95th percentile of a control request, by the size of its body."""
    sizes = [1, 1000, 32_676, 65_536, 262_144, MIB]
    with place(folder, MIB) as here:
        found = here.control(requests, sizes)
    return {
        size: (statistics.median(times), statistics.quantiles(times, n=20)[-1])
        for size, times in found.items()
    }


def memory(folder: Path | None, *, payload_bytes: int) -> dict[str, Any]:
    """P7: one push that a re-key interrupts; the most memory that both ends had."""
    with place(folder, payload_bytes) as here:
        seconds = here.edgesdk()
        return {**here.last, "seconds": seconds}


def cuts(
    folder: Path | None, *, payload_bytes: int, count: int, round_trip_s: float = 0.0
) -> list[int]:
    """D7: bytes that went twice, for connections that were cut at random moments."""
    rng = random.Random(5)
    with contextlib.ExitStack() as stack:
        network = None
        if round_trip_s:
            network = stack.enter_context(SlowNetwork(round_trip_s=round_trip_s))
        here = stack.enter_context(place(folder, payload_bytes, network=network))
        found = []
        for _ in range(count):
            words = ["cut", here.url(), str(here.folder / "bundle"), str(rng.random()), ""]
            here.timed([sys.executable, str(ARMS), *words])
            found.append(here.last["posted"] - payload_bytes)
        return found


def fleet(folder: Path | None, *, devices: int, payload_bytes: int, rounds: int) -> Rounds:
    """P8: several devices at once from one process, and one after the other."""
    with place(folder, payload_bytes) as here:
        here.fleet(devices)

        def one_by_one() -> float:
            return sum(here.fleet(1) for _ in range(devices))

        arms: dict[str, Arm] = {
            "at once": lambda: here.fleet(devices),
            "one by one": one_by_one,
            "at once again": lambda: here.fleet(devices),
        }
        return Rounds(arms, rounds)


def show(title: str, found: Rounds, payload_bytes: int, *, arms: Sequence[str]) -> None:
    """Print the rates of a run and the ratios of ``arms`` to every scp in it."""
    print(f"\n{title}")
    for line in found.lines(payload_bytes):
        print(line)
    peers = [name for name in found.seconds if name in ("scp gcm", "scp", "sftp.put")]
    for arm in arms:
        ratios = ", ".join(f"{peer} {found.ratio(arm, peer):.2f}" for peer in peers)
        print(f"  {arm} is so many times as fast as: {ratios}")
    print(f"  {found.why_void('scp gcm', 'scp gcm again') or 'two equal arms agree'}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, help="where sources and targets lie")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--only", default="P1,P4,P5,P6,P7,P8,D7")
    options = parser.parse_args()
    where, rounds = options.folder, options.rounds
    wanted = options.only.split(",")
    if "P1" in wanted:
        found = loopback(where, payload_bytes=200 * MIB, rounds=rounds)
        show("P1-P3: 200 MiB over loopback", found, 200 * MIB, arms=["edgesdk"])
    for milliseconds in (20, 60) if "P4" in wanted else ():
        found = slow(
            where,
            round_trip_s=milliseconds / 1000,
            payload_bytes=200 * MIB,
            rounds=rounds,
            lanes=(1, 2),
        )
        title = f"P4: 200 MiB at a round trip of {milliseconds} ms"
        show(title, found, 200 * MIB, arms=["edgesdk", *LANE_ARMS])
    for loss in (0.0, 0.001) if "P5" in wanted else ():
        found = slow(
            where,
            round_trip_s=0.02,
            bits_per_s=100e6,
            loss=loss,
            payload_bytes=50 * MIB,
            rounds=max(2, rounds // 2),
        )
        show(
            f"P5: 50 MiB at 100 Mbit/s, 20 ms, loss {loss:g}", found, 50 * MIB, arms=["edgesdk"]
        )
        used = 50 * MIB * 8 / found.pushing_s / 100e6
        print(f"  the push itself uses {100 * used:.0f} % of the bit rate")
    if "P6" in wanted:
        print("\nP6: a control request on an open session, over loopback")
        for size, (middle, high) in control(where, requests=60).items():
            print(f"  {size:>8} bytes: median {1e3 * middle:.2f} ms, 95 % {1e3 * high:.2f} ms")
    if "P7" in wanted:
        last = memory(where, payload_bytes=1024 * MIB)
        print("\nP7: 1 GiB across a re-key")
        print(
            f"  {last['seconds']:.1f} s, host {last['host_kib'] / 1024:.0f} MiB, "
            f"agent {last['agent_kib'] / 1024:.0f} MiB"
        )
    for milliseconds in (0, 60) if "D7" in wanted else ():
        twice = cuts(where, payload_bytes=100 * MIB, count=10, round_trip_s=milliseconds / 1000)
        print(f"\nD7: 10 cuts of 100 MiB at random moments, round trip {milliseconds} ms")
        middle, most = statistics.median(twice) / MIB, max(twice) / MIB
        print(f"  sent twice: median {middle:.2f} MiB, at most {most:.2f} MiB")
    if "P8" in wanted:
        found = fleet(where, devices=8, payload_bytes=20 * MIB, rounds=max(2, rounds // 2))
        print("\nP8: 20 MiB to each of 8 devices")
        ratio = found.ratio("at once", "one by one")
        print(f"  at once is {ratio:.2f} times as fast as one by one")
        print(f"  {found.why_void('at once', 'at once again') or 'two equal arms agree'}")


if __name__ == "__main__":
    main()
