"""The operation ``evaluate``: many samples through a release in one request.

Samples travel as a pack: the tensors of the inputs, each with one axis in front that counts the
samples. A pack that the host asks to keep is stored under its hash, so that the same samples
need not come twice over a slow link. What is kept is no more than a cache: it is bounded, goes
oldest first, and whatever is wrong with it means that the host sends the pack.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import zlib
from typing import TYPE_CHECKING, Any, Dict, List, Optional, Tuple

from edge_agent import asking
from edge_agent.fs import Folder, NotOurs
from edge_agent.landing import inflate
from edge_agent.measuring import load_release
from edge_agent.refusals import Refused
from edge_agent.store import RESERVE_BYTES
from edgesdk.wire import codes
from edgesdk.wire.frames import Frame
from edgesdk.wire.limits import MAX_PACK_SAMPLES, MAX_TENSOR_BYTES, MAX_TOP
from edgesdk.wire.manifest import is_sha256
from edgesdk.wire.tensors import TensorError, check_specs

if TYPE_CHECKING:
    from edge_agent.agent import Agent
    from edge_agent.context import Context

__all__ = ["KEPT_BYTES", "Packs", "evaluate"]

#: What all kept packs may take of the disk.
KEPT_BYTES = 128 << 20
_INFERENCE_S = 120.0
_MAX_TIMEOUT_S = 86_400.0
#: A worker reports so often, so one inference may seem to take that much longer.
_REPORT_S = 1.0
_MAX_NAMES = 256
_LEVEL = 6


class Packs:
    """The packs of samples that are kept, in a folder of the state folder."""

    def __init__(self, root: Folder, *, budget_bytes: int = KEPT_BYTES) -> None:
        self._root = root
        self._budget_bytes = budget_bytes
        self._folder = root.sub("samples")
        for name in self._folder.names():
            if not is_sha256(name):
                with contextlib.suppress(OSError):
                    self._folder.remove(name)  # one that was never complete

    def read(self, sha256: str) -> bytes:
        """Give a pack whose bytes are what its name says; nothing where there is none."""
        with contextlib.suppress(OSError, NotOurs):
            data = self._folder.read(sha256, limit=MAX_TENSOR_BYTES)
            if hashlib.sha256(data).hexdigest() == sha256:
                os.utime(sha256, dir_fd=self._folder.fd)
                return data
            self._folder.remove(sha256)
        return b""

    def keep(self, sha256: str, data: bytes) -> bool:
        """Store a pack, making room for it; say whether it is there now."""
        try:
            if self._folder.size(sha256) == len(data):
                return True
            if len(data) > self._budget_bytes:
                return False
            self._make_room(len(data))
            if len(data) + RESERVE_BYTES > self._root.free_bytes():
                return False
            self._folder.write_whole(sha256, data)
        except (OSError, NotOurs):  # a full or failing disk: this is a cache
            return False
        return True

    def _make_room(self, wanted_bytes: int) -> None:
        """Remove what was used longest ago until ``wanted_bytes`` more are within bounds."""
        seen = []
        for name in self._folder.names():
            found = self._folder.stat(name)
            if found is not None:
                seen.append((found.st_mtime_ns, name, found.st_size))
        total = sum(size for _, _, size in seen)
        for _, name, size in sorted(seen):
            if total + wanted_bytes <= self._budget_bytes:
                return
            self._folder.remove(name)
            total -= size

    def clear(self) -> int:
        """Remove every pack; give how many bytes that freed."""
        freed = 0
        for name in self._folder.names():
            size = self._folder.size(name) or 0
            if self._folder.remove(name):
                freed += size
        return freed

    def close(self) -> None:
        """Close the folder."""
        self._folder.close()


def _pack(agent: Agent, meta: Dict[str, Any], body: bytes) -> Tuple[bytes, bool]:
    """Give the bytes of a request's pack, and whether they were here already."""
    if meta.get("raw_bytes") is not None:
        body = inflate(body, asking.whole(meta, "raw_bytes", 0, MAX_TENSOR_BYTES))
    if meta.get("pack") is None:
        return body, False
    sha256 = asking.sha256(meta, "pack")
    packs = _packs(agent)
    if not body:
        kept = b"" if packs is None else packs.read(sha256)
        if not kept:
            raise Refused(
                codes.NOT_FOUND,
                "the samples {} are not here: send them".format(sha256[:12]),
                pack=sha256,
            )
        return kept, True
    if hashlib.sha256(body).hexdigest() != sha256:
        raise Refused(codes.BAD_HASH, "the samples hash to another name", pack=sha256)
    if packs is not None:
        packs.keep(sha256, body)
    return body, False


def _packs(agent: Agent) -> Optional[Packs]:
    """What is kept; None where the disk does not even take a folder."""
    try:
        return agent.packs  # type: ignore[no-any-return] # what is imported later has no types
    except (OSError, NotOurs):
        return None


def _check_pack(
    meta: Dict[str, Any], count: int, body: bytes, wanted: List[Dict[str, Any]], bundle: str
) -> List[Dict[str, Any]]:
    """Check the tensors of a pack: ``count`` samples, each of them what the bundle takes."""
    try:
        specs = check_specs(meta.get("tensors"), len(body))
    except TensorError as exc:
        raise Refused(codes.BAD_REQUEST, "cannot read the samples: {}".format(exc)) from exc
    ones = []
    for spec in specs:
        if not spec["shape"] or spec["shape"][0] != count:
            text = "tensor {!r} is {}: its first axis does not count {} samples"
            raise Refused(
                codes.BAD_REQUEST, text.format(spec["name"][:100], spec["shape"], count)
            )
        one = dict(spec, shape=spec["shape"][1:], nbytes=spec["nbytes"] // count)
        ones.append(one)
    asking.tensors(ones, body, wanted, bundle[:12])
    return specs


def _wanted_outputs(meta: Dict[str, Any], manifest: Dict[str, Any]) -> List[str]:
    """Names of the outputs that the host wants; all of them where it names none."""
    there = [str(value["name"]) for value in manifest["outputs"]]
    wanted = meta.get("outputs")
    if wanted is None:
        return there
    if not isinstance(wanted, list) or not 0 < len(wanted) <= _MAX_NAMES:
        raise Refused(codes.BAD_REQUEST, "outputs is no list of names")
    for name in wanted:
        if name not in there:
            text = "there is no output {!r} (the outputs are {})".format(name, there)
            raise Refused(codes.BAD_DATA, text[:600])
    return list(dict.fromkeys(wanted))


def evaluate(agent: Agent, ctx: Context, meta: Dict[str, Any], body: bytes) -> Frame:
    """Run a release on every sample of a pack, one after the other, and give the outputs."""
    bundle, manifest = agent.releases.need(asking.text(meta, "release"))
    count = asking.whole(meta, "samples", 1, MAX_PACK_SAMPLES)
    top = asking.whole(meta, "top", 0, MAX_TOP, default=0)
    timeout_s = asking.number(meta, "timeout_s", 0.001, _MAX_TIMEOUT_S, default=_INFERENCE_S)
    squeeze = asking.flag(meta, "squeeze")
    outputs = _wanted_outputs(meta, manifest)
    pack, was_here = _pack(agent, meta, body)
    specs = _check_pack(meta, count, pack, manifest["inputs"], bundle)
    with agent.worker_turn(ctx, bundle, manifest):
        loaded = load_release(agent, ctx, bundle, manifest, timeout_s=timeout_s)
        run_s = loaded.limits["run_s"]
        if run_s is not None:  # the bundle's own bound, or the device's
            timeout_s = min(timeout_s, float(run_s))
        each_s = timeout_s + _REPORT_S
        with agent.probation.around(bundle, loads=False):
            reply = loaded.worker.request(
                {
                    "op": "evaluate",
                    "samples": count,
                    "tensors": specs,
                    "outputs": outputs,
                    "top": top,
                },
                pack,
                timeout_s=each_s,
                doing="running the model",
                on_event=ctx.event,
                each_event_s=each_s,
            )
        loaded.fresh = False  # a cold start is not to be measured of it any more
    kept = {key: reply.meta.get(key) for key in ("samples", "tensors", "run_ms")}
    kept["was_here"] = was_here
    answer = reply.body
    if squeeze:
        packed = zlib.compress(answer, _LEVEL)
        if len(packed) < len(answer):
            kept["raw_bytes"] = len(answer)
            answer = packed
    return Frame(kept, answer)
