"""The host's end as a target: what a device answers, changed; only our errors may come of it.

An input is a JSON list of pairs (operation, reply). The host runs its verbs against a scripted
device that gives these answers, each the next of its operation, the last one again and again.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np

from edgesdk.bench import run_benchmark
from edgesdk.bench.evaluation import evaluate_release
from edgesdk.bundle import Bundle
from edgesdk.data.dataset import Dataset, open_dataset
from edgesdk.deploy import (
    collect_garbage,
    confirm_release,
    deploy_bundle,
    list_releases,
    rollback,
    run_on_device,
)
from edgesdk.devices import Session, read_facts, read_logs, read_status, resolve_device
from edgesdk.devices.agentpack import pack_agent
from edgesdk.errors import EdgeError
from edgesdk.tensors import TensorInfo
from edgesdk.testing import ScriptedChannel, make_echo_bundle
from edgesdk.transport.base import Channel
from edgesdk.transport.open import open_channel
from edgesdk.wire.frames import Frame, FrameError, FrameReader, encode_frame
from tests.fuzz.fuzzing import Target
from tests.fuzz.mutate import mutate_json

__all__ = ["labelled_rows", "reply_target"]

_HERE = ("edgesdk/devices/", "edgesdk/deploy/", "edgesdk/bench/")


class _Noting:
    """A channel that keeps what comes over it."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._replies = FrameReader()
        self._requests = FrameReader()
        self._ops: dict[int, str] = {}
        self.seen: list[list[Any]] = []
        self.name, self.traits, self.notes = channel.name, channel.traits, channel.notes

    def read(self, *, timeout_s: float) -> bytes:
        data = self._channel.read(timeout_s=timeout_s)
        for frame in self._replies.feed(data):
            if "event" not in frame.meta:
                meta = {key: value for key, value in frame.meta.items() if key != "id"}
                self.seen.append([self._ops[frame.meta["id"]], meta, frame.body.hex()])
        return data

    def write(self, data: bytes, *, timeout_s: float) -> None:
        for frame in self._requests.feed(data):
            self._ops[frame.meta["id"]] = frame.meta["op"]
        self._channel.write(data, timeout_s=timeout_s)

    def close(self) -> None:
        self._channel.close()


class _Played:
    """Answers with what an input says."""

    def __init__(self, replies: Any) -> None:
        self._left: dict[str, list[tuple[dict[str, Any], bytes]]] = {}
        for item in replies if isinstance(replies, list) else []:
            if not isinstance(item, list) or len(item) != 3:
                continue
            op, meta, body = item
            if isinstance(op, str) and isinstance(meta, dict):
                self._left.setdefault(op, []).append((meta, _bytes_of(body)))

    def __call__(self, request: Frame) -> Iterable[Frame]:
        replies = self._left.get(str(request.meta.get("op")), [])
        if not replies:
            return []
        meta, body = replies.pop(0) if len(replies) > 1 else replies[0]
        frame = Frame({**meta, "id": request.meta["id"]}, body)
        try:
            encode_frame(frame)
        except FrameError:
            return []
        return [frame]


def _bytes_of(body: Any) -> bytes:
    if not isinstance(body, str):
        return b""
    try:
        return bytes.fromhex(body[: 1 << 17])
    except ValueError:
        return body[: 1 << 16].encode("utf-8", "surrogatepass")


def labelled_rows() -> Iterable[dict[str, Any]]:
    """Rows that an echo classifies by their largest value."""
    for number in range(5):
        row = np.zeros(64, np.uint8)
        row[number] = 1
        yield {"x": row, "labels": number}


def _labelled() -> Dataset:
    inputs = (TensorInfo(name="x", dtype="uint8", shape=(64,)),)
    return open_dataset(f"{__name__}:{labelled_rows.__name__}", inputs)


def _verbs(bundle: Bundle) -> list[Callable[[Session], Any]]:
    device = resolve_device("local:")
    return [
        read_facts,
        read_status,
        lambda session: deploy_bundle(bundle, session, device=device),
        lambda session: run_on_device(session, "current", {}),
        lambda session: run_benchmark(session, bundle, device=device, deployment=None),
        lambda session: evaluate_release(session, bundle.id, _labelled(), metrics=("top1",)),
        list_releases,
        confirm_release,
        rollback,
        collect_garbage,
        lambda session: read_logs(session, lines=10),
    ]


def _record(bundle: Bundle, state: Path) -> bytes:
    device = resolve_device(f"local:?state={state}")
    channel = _Noting(open_channel(device.url, agent=pack_agent(), timeout_s=30.0))
    with Session(channel, device_name="fuzzed") as session:
        for verb in _verbs(bundle):
            try:
                verb(session)
            except EdgeError:
                continue  # an empty device has nothing to go back to
    return json.dumps(channel.seen, sort_keys=True).encode()


def _mutate(data: bytes, rng: random.Random, other: bytes) -> bytes:
    changed = mutate_json(json.loads(data), rng, times=rng.choice((1, 2, 4, 8)))
    return json.dumps(changed, sort_keys=True).encode()


def reply_target(folder: Path) -> Target:
    """The answers of a device to status, deployment, run, bench, evaluate, releases and more.

    They are noted first, of an agent that lives in ``folder``.
    """
    bundle = make_echo_bundle(folder / "bundle")
    seed = _record(bundle, folder / "state")

    def run(data: bytes) -> None:
        for verb in _verbs(bundle):
            channel = ScriptedChannel(_Played(json.loads(data)))
            try:
                with Session(channel, device_name="fuzzed", clock=channel.clock) as session:
                    verb(session)
            except EdgeError as exc:
                text = f"{exc} {exc.hint or ''}"
                assert "\x1b" not in text, "what a device says reaches the terminal"
                assert len(text) < 20_000

    return Target("replies", lambda: [seed], run, _HERE, _mutate, 25)
