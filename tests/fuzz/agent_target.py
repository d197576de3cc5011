"""The agent's operations as a target: a conversation whose fields and bodies are changed.

An input is a JSON list of requests: pairs of fields and body. A body is a string: ``@manifest``
or ``@old`` or ``@blob0`` for bytes of the bundles that the seeds push, else hex digits. The
agent lives in this process, in a folder of its own; no worker can start, so nothing runs.
"""

from __future__ import annotations

import hashlib
import json
import random
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from edgesdk.wire import codes
from edgesdk.wire.frames import Frame, FrameError, encode_frame
from tests.agent.agent_driver import EchoBundle
from tests.agent.inside import Inside, load_modules
from tests.fuzz.fuzzing import Target
from tests.fuzz.mutate import mutate_json

__all__ = ["agent_target"]

_OLD, _NEW = EchoBundle(b"old" * 30, name="old"), EchoBundle(b"new" * 40, name="new", parts=2)
_BODIES = {"@manifest": _NEW.data, "@old": _OLD.data}
_BODIES.update({f"@blob{i}": data for i, data in enumerate(_NEW.blobs.values())})
#: Ends the process or waits for somebody else: not for an agent inside the test.
_NOT_HERE = {"shutdown"}
_MOST_REQUESTS = 24
_WAITS = ("timeout_s", "wait_s", "budget_s", "probation_s")
_LONGEST_S = 0.05


def _push() -> list[list[Any]]:
    requests: list[list[Any]] = [[{"op": "stage", "bundle": _NEW.id}, "@manifest"]]
    for number, (sha256, data) in enumerate(_NEW.blobs.items()):
        meta = {"op": "put", "sha256": sha256, "bytes": len(data), "offset": 0}
        requests.append([meta, f"@blob{number}"])
    return [*requests, [{"op": "commit", "bundle": _NEW.id}, ""]]


def _seeds() -> list[bytes]:
    hello = {"op": "hello", "protocol": [1, 1], "host_version": "0", "session": "ab" * 16}
    tensors = [{"name": "x", "dtype": "int32", "shape": [2], "offset": 0, "nbytes": 8}]
    run = {"op": "run", "release": "current", "tensors": tensors, "timeout_s": 1}
    bench = {"release": "current", "spec": {"warmup": 1, "runs": 3, "duration_s": 1.0}}
    samples = "0000000000000000ffffffff00000000"
    pack = hashlib.sha256(bytes.fromhex(samples)).hexdigest()
    two = [{**tensors[0], "shape": [2, 2], "nbytes": 16}]
    evaluate = {"op": "evaluate", "release": "current", "samples": 2, "tensors": two}
    evaluate |= {"outputs": ["y"], "top": 0, "timeout_s": 1}
    pair = {"order": "01", "block_ms": 1.0, "duration_s": 0.05, "side_by_side": True}
    sha256, data = next(iter(_NEW.blobs.items()))
    talks: list[list[list[Any]]] = [
        [[hello, ""], [{"op": "facts"}, ""], [{"op": "status"}, ""]],
        [[{"op": "hold", "doing": "deploy", "wait_s": 0}, ""], *_push()],
        [*_push(), [{"op": "check", "bundle": _NEW.id, "timeout_s": 1, "force": True}, ""]],
        [*_push(), [{"op": "finish", "bundle": _NEW.id, "timeout_s": 1}, ""]],
        [*_push(), [{"op": "activate", "bundle": _NEW.id, "probation_s": 60}, ""]],
        [[{"op": "activate", "bundle": _OLD.id, "max_latency_us": 5.0}, ""]],
        [[{"op": "rollback", "why": "a person asked"}, ""], [{"op": "confirm"}, ""]],
        [[{"op": "releases"}, ""], [{"op": "gc", "budget_bytes": 100}, ""]],
        [[run, "0000000000000000"], [{**run, "op": "infer"}, "0000000000000000"]],
        [[{"op": "served", "release": "current"}, ""], [{"op": "bench", **bench}, ""]],
        [[evaluate, samples], [{**evaluate, "pack": pack}, ""]],
        [[{**evaluate, "pack": pack, "squeeze": True}, samples], [{"op": "gc"}, ""]],
        [[{"op": "profile", "release": "current", "runs": 2, "threads": 1}, ""]],
        [[{"op": "pair", "release": "current", "against": "previous", **pair}, ""]],
        [[{"op": "held"}, ""], [{"op": "logs", "lines": 10}, ""], [{"op": "unload"}, ""]],
        [
            [{"op": "stage", "bundle": _NEW.id}, "@manifest"],
            [{"op": "assemble", "sha256": sha256, "bytes": len(data)}, "45444431" + "00" * 40],
            [
                {
                    "op": "blocks",
                    "sha256": next(iter(_OLD.blobs)),
                    "bytes": 90,
                    "block_bytes": 32,
                    "strong_bytes": 8,
                    "stride": 1,
                },
                "",
            ],
        ],
        [
            [{"op": "stage", "bundle": _NEW.id, "bytes": len(_NEW.data), "offset": 0}, "7b"],
            [{"op": "put", "sha256": sha256, "bytes": len(data), "offset": 0}, "789c"],
        ],
        [
            [{"op": "trust", "set": {"signers": "a ssh-ed25519 AAAA", "require": True}}, ""],
            [{"op": "vouch", "bundle": _NEW.id, "statement": "{}", "signature": "x"}, ""],
        ],
    ]
    return [json.dumps(talk, sort_keys=True).encode() for talk in talks]


def _mutate(data: bytes, rng: random.Random, other: bytes) -> bytes:
    talk = json.loads(data)
    if rng.random() < 0.3:
        theirs = json.loads(other)
        at = rng.randrange(len(talk) + 1)
        talk = talk[:at] + theirs[: rng.randint(1, 4)] + talk[at:]
    changed = mutate_json(talk, rng)
    if not isinstance(changed, list):
        changed = [changed]
    return json.dumps(changed[:_MOST_REQUESTS], sort_keys=True).encode()


def _read(item: Any) -> tuple[dict[str, Any], bytes]:
    """Give the request of a list's item, whatever became of that."""
    meta, body = item if isinstance(item, list) and len(item) == 2 else (item, "")
    meta = dict(meta) if isinstance(meta, dict) else {"op": meta}
    op = str(meta.get("op"))
    if op in _NOT_HERE:
        meta["op"] = "status"
    for name in _WAITS:
        value = meta.get(name)
        if type(value) in (int, float) and value > _LONGEST_S and name != "probation_s":
            meta[name] = _LONGEST_S
    if op in ("infer", "run", "bench", "pair", "profile", "evaluate"):
        meta.setdefault("timeout_s", _LONGEST_S)
    if not isinstance(body, str):
        body = ""
    if body in _BODIES:
        return meta, _BODIES[body]
    try:
        return meta, bytes.fromhex(body[:4096])
    except ValueError:
        return meta, body[:4096].encode("utf-8", "surrogatepass")


def agent_target(agent_modules: Callable[[str], Any], template: Path) -> Target:
    """Every operation of an agent that has one release, which is made in ``template``.

    ``agent_modules`` imports the agent's code.
    """
    modules = load_modules(agent_modules)
    first = Inside(modules, template / "state", python="/nonexistent/python")
    assert first.deploy(_OLD) is None
    first.agent.close()

    def run(data: bytes) -> None:
        with tempfile.TemporaryDirectory(prefix="edge-fuzz-") as folder:
            home = Path(folder)
            shutil.copytree(template / "state", home / "state")
            inside = Inside(modules, home / "state", python="/nonexistent/python")
            try:
                _talk(inside, json.loads(data))
                assert sorted(path.name for path in home.iterdir()) == ["state"]
                slots = inside.ask("status").meta["slots"]
                assert slots["current"] is None or slots["current"]["bundle"] in (
                    _OLD.id,
                    _NEW.id,
                )
            finally:
                inside.agent.close()

    return Target("operations", _seeds, run, ("device_agents/edge_agent/",), _mutate, 60)


def _talk(inside: Inside, talk: Any) -> None:
    for number, item in enumerate(talk if isinstance(talk, list) else [talk]):
        meta, body = _read(item)
        try:  # what cannot be said in a frame cannot be asked
            encode_frame(Frame({**meta, "id": number + 1}, body))
        except FrameError:
            continue
        reply = inside.modules["handlers"].answer(
            inside.agent, inside.ctx, Frame({**meta, "id": number + 1}, body)
        )
        encode_frame(reply)
        assert reply.meta["id"] == number + 1
        if reply.meta["ok"] is not True:
            assert reply.meta["code"] in codes.ALL_CODES
            assert reply.meta["code"] != codes.AGENT_BUG, reply.meta
            assert isinstance(reply.meta["detail"], str)
            assert len(reply.meta["detail"]) < 20_000
