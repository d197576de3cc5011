"""How much of a serial line is payload: edgesdk's push beside ZMODEM, on the same faulty link.

Run it by itself for the whole table: ``python tests/perf/link_serial.py [--quick]``. Each cell
is ``bytes x 10 / baud / seconds``. Ours is a push to the real agent, from the first
chunk until the device has hashed and kept the blob; the greeting is left out. ZMODEM is ``sz``
to ``rz``, less the time that one byte takes.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import termios
import time
import tty
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgesdk.deploy.push import push_blobs, read_missing
from edgesdk.devices import connect, resolve_device
from edgesdk.testing import FaultyLink, LineFaults, make_echo_bundle, serial_agent
from edgesdk.transport.serial import SerialChannel
from edgesdk.wire.manifest import canonical_bytes, deployed_blobs

LATENCY_S = 0.001
#: Beyond this the relay is too late for its figures to mean anything.
CALIBRATION = 0.01
_PEER_TIMEOUT_S = 90


@dataclass(frozen=True)
class Run:
    """One transfer: its share of the line, and what the line did to it.

    ``stream_share`` counts every byte of the reliable stream: the fields of requests, too.
    """

    share: float
    errors: int
    seconds: float
    wire_bytes: int
    stream_share: float = 0.0


def set_speed(path: str, baud: int) -> None:
    descriptor = os.open(path, os.O_RDWR | os.O_NOCTTY)
    try:
        tty.setraw(descriptor, termios.TCSANOW)
        settings = termios.tcgetattr(descriptor)
        settings[4] = settings[5] = getattr(termios, f"B{baud}")
        termios.tcsetattr(descriptor, termios.TCSANOW, settings)
    finally:
        os.close(descriptor)


def calibrate(baud: int) -> float:
    """The rate the relay holds here and now, as a share of what it should be."""
    with FaultyLink(latency_s=LATENCY_S) as link:
        for path in (link.host_path, link.device_path):
            set_speed(path, baud)
        return link.measure(seconds=1.0)


@contextlib.contextmanager
def line(baud: int, error_rate: float, *, late_s: float, seed: int) -> Iterator[FaultyLink]:
    faults = LineFaults.errors(error_rate)
    with FaultyLink(
        latency_s=LATENCY_S,
        return_latency_s=late_s,
        to_device=faults,
        to_host=faults,
        seed=seed,
    ) as link:
        yield link


def ours(
    payload: bytes, baud: int, error_rate: float, *, late_s: float = 0.0, seed: int = 1
) -> Run:
    """Push ``payload`` to a real agent."""
    with (
        tempfile.TemporaryDirectory() as name,
        line(baud, error_rate, late_s=late_s, seed=seed) as link,
        serial_agent(link.device_path, Path(name) / "d" / "state", baud=baud),
    ):
        folder = Path(name)
        bundle = make_echo_bundle(folder / "b", part=payload)
        sha256 = hashlib.sha256(payload).hexdigest()
        device = resolve_device(f"serial://{link.host_path}?baud={baud}&max_baud={baud}")
        with connect(device, timeout_s=60.0) as session:
            manifest = canonical_bytes(dict(bundle.manifest))
            meta = session.request("stage", {"bundle": bundle.id}, manifest).meta
            wanted = dict(deployed_blobs(dict(bundle.manifest)))
            missing = [m for m in read_missing(meta, wanted) if m.sha256 == sha256]
            assert isinstance(session.channel, SerialChannel)
            before, carried = link.counts("to_device"), session.channel.bytes_sent
            began = time.monotonic()
            push_blobs(session, bundle, missing)
            took_s = time.monotonic() - began
            after = link.counts("to_device")
            carried = session.channel.bytes_sent - carried
        (kept,) = (folder / "d" / "state").rglob(sha256)
        assert hashlib.sha256(kept.read_bytes()).hexdigest() == sha256
    return Run(
        share=len(payload) * 10 / baud / took_s,
        errors=after.errors - before.errors,
        seconds=took_s,
        wire_bytes=after.sent - before.sent,
        stream_share=carried * 10 / baud / took_s,
    )


def why_no_peer() -> str | None:
    """Why ``sz`` cannot be measured here, or None."""
    if shutil.which("sz") and shutil.which("rz"):
        return None
    return "needs sz and rz: apt-get install lrzsz"


def zmodem(
    payload: bytes, baud: int, error_rate: float, *, late_s: float = 0.0, seed: int = 1
) -> Run:
    """Send ``payload`` from ``sz -b`` to ``rz``; a share of 0 when it did not finish."""
    with (
        tempfile.TemporaryDirectory() as name,
        line(baud, 0.0, late_s=late_s, seed=seed) as link,
    ):
        folder = Path(name)
        for path in (link.host_path, link.device_path):
            set_speed(path, baud)
        idle_s = _send(link, folder / "one", b"x")
        link.set_faults(LineFaults.errors(error_rate))
        before = link.counts("to_device")
        took_s = _send(link, folder / "all", payload) - idle_s
        after = link.counts("to_device")
    return Run(
        share=len(payload) * 10 / baud / took_s if took_s < _PEER_TIMEOUT_S - 5 else 0.0,
        errors=after.errors - before.errors,
        seconds=took_s,
        wire_bytes=after.sent - before.sent,
    )


def _send(link: FaultyLink, folder: Path, payload: bytes) -> float:
    there = folder / "there"
    there.mkdir(parents=True)
    file = folder / "payload"
    file.write_bytes(payload)
    with open(link.host_path, "r+b", buffering=0) as host:
        sender = subprocess.Popen(
            ["sz", "-b", "-q", str(file)], stdin=host, stdout=host, stderr=subprocess.DEVNULL
        )
    time.sleep(0.3)  # it throws away what came before it was ready, and then waits 10 s
    began = time.monotonic()
    with open(link.device_path, "r+b", buffering=0) as device:
        receiver = subprocess.Popen(
            ["rz", "-b", "-y", "-q"],
            stdin=device,
            stdout=device,
            stderr=subprocess.DEVNULL,
            cwd=there,
        )
    try:
        sender.wait(_PEER_TIMEOUT_S)
        took_s = time.monotonic() - began
        with contextlib.suppress(subprocess.TimeoutExpired):
            receiver.wait(1.0)  # now and then it waits for a last word that was there
    except subprocess.TimeoutExpired:
        return float(_PEER_TIMEOUT_S)
    finally:
        for process in (sender, receiver):
            process.kill()
            process.wait()
    whole = (there / "payload").read_bytes() == payload
    return took_s if whole else float(_PEER_TIMEOUT_S)


def int8_weights(count: int) -> bytes:
    """Bytes like the weights of a network quantized to int8: normal, a spread per channel."""
    import numpy as np

    rng = np.random.default_rng(3)
    channels = rng.normal(0.0, 1.0, (max(1, count // 576), 576))
    spread = np.abs(channels).max(axis=None) / rng.uniform(0.7, 3.0, (len(channels), 1))
    return (
        np.clip(np.rint(channels / spread * 127), -127, 127).astype(np.int8).tobytes()[:count]
    )


def table(*, quick: bool, rounds: int) -> None:
    cells = [
        (115_200, 0.0, 0.0, 150_000),
        (921_600, 0.0, 0.0, 1_000_000),
        (921_600, 0.0, 0.016, 1_000_000),
        (3_000_000, 0.0, 0.0, 3_000_000),
        (3_000_000, 0.0, 0.016, 3_000_000),
        (3_000_000, 1e-6, 0.0, 9_000_000),
        (921_600, 1e-5, 0.0, 2_000_000),
        (3_000_000, 1e-5, 0.0, 3_000_000),
        (921_600, 1e-4, 0.0, 1_000_000),
        (921_600, 1e-3, 0.0, 500_000),
    ]
    print(
        "baud     errors  late   bytes     stream  payload  (min-max)        sz     line errors"
    )
    for baud, error_rate, late_s, whole in cells:
        size = min(whole, int(4 * baud / 10)) if quick else whole
        off = calibrate(baud)
        note = "" if abs(off - 1) <= CALIBRATION else f"  relay off: {100 * (off - 1):+.1f} %"
        mine, stream, peer, errors = [], [], [], 0
        for turn in range(rounds):
            payload = random.Random(turn).randbytes(size)
            run = ours(payload, baud, error_rate, late_s=late_s, seed=turn)
            mine.append(100 * run.share)
            stream.append(100 * run.stream_share)
            errors += run.errors
            if why_no_peer() is None:
                peer.append(
                    100 * zmodem(payload, baud, error_rate, late_s=late_s, seed=turn).share
                )
        theirs = f"{statistics.median(peer):6.1f}" if peer else "     -"
        print(
            f"{baud:<8} {error_rate:<7g} {late_s * 1000:>2.0f} ms {size:>8}  "
            f"{statistics.median(stream):6.2f}  {statistics.median(mine):6.2f}  "
            f"({min(mine):.2f}-{max(mine):.2f})  {theirs}  "
            f"{errors:>6}{note}",
            flush=True,
        )
    for name, payload in compressible(400_000).items():
        run = ours(payload, 921_600, 0.0)
        print(f"{name}: {run.share:.2f}x the line's rate, {run.wire_bytes} bytes on the line")


def compressible(size: int) -> dict[str, Any]:
    return {"int8 weights": int8_weights(size), "zeros": bytes(size)}


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true", help="at most 4 s of line a cell")
    parser.add_argument("--rounds", type=int, default=1)
    options = parser.parse_args()
    table(quick=options.quick, rounds=options.rounds)
    sys.exit(0)
