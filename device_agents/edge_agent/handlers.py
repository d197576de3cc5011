"""What each operation does.

A handler takes the agent, the request's context, its fields and its body, and gives a frame;
`Refused` is how it says no.
"""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Any, Callable, Dict, Optional

import edge_agent
from edge_agent import asking, later
from edge_agent.fs import NotOurs
from edge_agent.gate import gate
from edge_agent.holding import HELD_OPS
from edge_agent.landing import inflate
from edge_agent.refusals import Cancelled, Refused, from_os_error
from edgesdk.wire import codes
from edgesdk.wire.frames import Frame
from edgesdk.wire.limits import (
    MAX_AHEAD_BYTES,
    MAX_BODY_BYTES,
    MAX_CHUNK_BYTES,
    MAX_MANIFEST_BYTES,
)
from edgesdk.wire.manifest import canonical_bytes
from edgesdk.wire.ops import PROTOCOL_NEWEST, PROTOCOL_OLDEST

if TYPE_CHECKING:
    from edge_agent.agent import Agent

__all__ = ["HANDLERS", "answer"]

#: Not worth a line in the log.
_QUIET = ("put", "held", "hello", "status", "logs", "ping", "infer", "served", "evaluate")


def _hello(agent: Agent, ctx: Any, meta: Dict[str, Any], body: bytes) -> Frame:
    asked = meta.get("protocol")
    if (
        not isinstance(asked, list)
        or len(asked) != 2
        or any(type(version) is not int for version in asked)
    ):
        raise Refused(codes.BAD_REQUEST, "protocol must be [oldest, newest]")
    ctx.peer.who = asking.line(meta, "who", limit=128)
    oldest, newest = asked
    best = min(newest, PROTOCOL_NEWEST)
    if best < max(oldest, PROTOCOL_OLDEST):
        side = "agent" if oldest > PROTOCOL_NEWEST else "host"
        raise Refused(
            codes.VERSION,
            "the host speaks protocol {} to {}, this agent {} to {}: the {} is old".format(
                oldest, newest, PROTOCOL_OLDEST, PROTOCOL_NEWEST, side
            ),
            agent_version=edge_agent.__version__,
            agent_sha256=agent.sha256,
            protocol=[PROTOCOL_OLDEST, PROTOCOL_NEWEST],
            old=side,
        )
    return Frame(
        {
            "protocol": best,
            "agent_version": edge_agent.__version__,
            "agent_sha256": agent.sha256,
            "python": agent.python_version,
            "machine": os.uname().machine,
            "daemon": agent.daemon,
            "pid": os.getpid(),
            "notice": agent.slots.notice(),
            "signatures": agent.policy.files.words(),
            "bare": ctx.takes_bare,
            "limits": {"max_chunk_bytes": MAX_CHUNK_BYTES, "max_body_bytes": MAX_BODY_BYTES},
        }
    )


def _stage(agent: Agent, ctx: Any, meta: Dict[str, Any], body: bytes) -> Frame:
    bundle = asking.sha256(meta, "bundle")
    total = asking.whole(meta, "bytes", 0, MAX_MANIFEST_BYTES, default=len(body))
    offset = asking.whole(meta, "offset", 0, MAX_MANIFEST_BYTES, default=0)
    data = None  # type: Optional[bytes]
    if not body and not total:
        # the host tries its luck: the manifest may be here from an earlier push
        manifest = agent.releases.manifest(bundle) or agent.store.pending_manifest(bundle)
        if manifest is None:
            raise Refused(
                codes.NOT_FOUND,
                "bundle {} is not known here: send its manifest".format(bundle[:12]),
            )
    else:
        data, have = agent.store.collect_manifest(bundle, body, offset, total)
        if data is None:
            return Frame({"have": have})
        manifest = agent.store.checked_manifest(bundle, data)
    missing = agent.store.missing(manifest)
    needed, free = agent.store.check_room(missing)
    if data is not None and (missing or agent.releases.manifest(bundle) is None):
        agent.store.stage(bundle, data, agent.slots.tick())
    elif missing:
        agent.store.stage(bundle, canonical_bytes(manifest), agent.slots.tick())
    return Frame({"missing": missing, "needed_bytes": needed, "free_bytes": free})


def _put(agent: Agent, ctx: Any, meta: Dict[str, Any], body: bytes) -> Frame:
    sha256 = asking.sha256(meta, "sha256")
    size = asking.whole(meta, "bytes", 0, 1 << 40)
    offset = asking.whole(meta, "offset", 0, 1 << 40)
    if meta.get("raw_bytes") is not None:
        body = inflate(body, asking.whole(meta, "raw_bytes", 0, MAX_CHUNK_BYTES))
    ahead = meta.get("ahead") is True
    have, done = agent.store.put(sha256, size, offset, body, ahead=ahead)
    return Frame({"have": have, "done": done})


def _lanes(agent: Agent, ctx: Any, meta: Dict[str, Any], body: bytes) -> Frame:
    return Frame({"token": agent.lanes.new_token(), "ahead_bytes": MAX_AHEAD_BYTES})


def _commit(agent: Agent, ctx: Any, meta: Dict[str, Any], body: bytes) -> Frame:
    agent.releases.commit(asking.sha256(meta, "bundle"))
    return Frame({"committed": True})


def _hold(agent: Agent, ctx: Any, meta: Dict[str, Any], body: bytes) -> Frame:
    """Take hold of the device, or wait for it: see `edge_agent.holding`."""
    wait_s = asking.number(meta, "wait_s", 0, 86_400.0, default=0.0)
    doing = asking.line(meta, "doing", limit=80)
    agent.hold.take(ctx.peer, doing, wait_s=wait_s, cancelled=ctx.is_cancelled)
    return Frame({"holder": agent.hold.state()})


def _release(agent: Agent, ctx: Any, meta: Dict[str, Any], body: bytes) -> Frame:
    """Let go of the device."""
    agent.hold.release(ctx.peer)
    return Frame({})


def _logs(agent: Agent, ctx: Any, meta: Dict[str, Any], body: bytes) -> Frame:
    return Frame({"lines": agent.log.tail(asking.whole(meta, "lines", 0, 10_000, default=100))})


def _ping(agent: Agent, ctx: Any, meta: Dict[str, Any], body: bytes) -> Frame:
    return Frame({})


def _unload(agent: Agent, ctx: Any, meta: Dict[str, Any], body: bytes) -> Frame:
    agent.supervisor.unload()
    return Frame({})


def _shutdown(agent: Agent, ctx: Any, meta: Dict[str, Any], body: bytes) -> Frame:
    ctx.after = agent.stop
    return Frame({})


#: A function, or where to find it: the module in `edge_agent.later` and the name there.
HANDLERS = {
    "hello": _hello,
    "facts": ("describing", "facts"),
    "status": ("describing", "status"),
    "stage": _stage,
    "put": _put,
    "lanes": _lanes,
    "held": ("assemble", "held"),
    "blocks": ("assemble", "blocks"),
    "assemble": ("assemble", "assemble"),
    "commit": _commit,
    "finish": ("finishing", "finish"),
    "check": ("measuring", "check"),
    "auth": ("policy_ops", "auth"),
    "vouch": ("policy_ops", "vouch"),
    "trust": ("policy_ops", "trust"),
    "activate": ("activation", "activate"),
    "rollback": ("activation", "rollback"),
    "confirm": ("activation", "confirm"),
    "hold": _hold,
    "release": _release,
    "releases": ("activation", "releases"),
    "gc": ("activation", "gc"),
    "run": ("measuring", "run"),
    "bench": ("benching", "bench"),
    "pair": ("pairing", "pair"),
    "evaluate": ("evaluating", "evaluate"),
    "profile": ("profiling", "profile"),
    "infer": ("serving", "infer"),
    "served": ("serving", "served"),
    "logs": _logs,
    "ping": _ping,
    "unload": _unload,
    "shutdown": _shutdown,
}  # type: Dict[str, Any]


def _handler(op: Any) -> Optional[Callable[[Agent, Any, Dict[str, Any], bytes], Frame]]:
    found = HANDLERS.get(op) if isinstance(op, str) else None
    if isinstance(found, tuple):
        module, name = found
        return getattr(getattr(later, module), name)  # type: ignore[no-any-return] # a function
    return found


def answer(agent: Agent, ctx: Any, request: Frame) -> Frame:
    """Do one request. Failure is a reply too: nothing that is asked can end the agent.

    Raises:
        Cancelled: The one who asked is gone; there is nobody to reply to.
    """
    started = time.monotonic()
    op = request.meta.get("op")
    refused = None  # type: Optional[Refused]
    try:
        handler = _handler(op)
        if handler is None:
            raise Refused(codes.UNKNOWN_OP, "this agent has no operation {!r}".format(op)[:200])
        if ctx.is_application and op not in later.serving.FOR_APPLICATIONS:
            text = "this socket answers applications: {}".format(
                ", ".join(later.serving.FOR_APPLICATIONS)
            )
            raise Refused(codes.UNKNOWN_OP, text)
        if op in HELD_OPS:
            agent.hold.require(ctx.peer)
        gate(agent, str(op), request.meta)
        reply = handler(agent, ctx, request.meta, request.body)
    except Refused as exc:
        refused = exc
    except Cancelled:
        if ctx.is_cancelled():
            agent.log.write("{}: nobody waits for it any more".format(op))
            raise
        # killed for somebody else, or because the agent ends: who asked still waits
        refused = Refused(codes.WORKER_DIED, "the worker was ended by the agent")
    except OSError as exc:
        refused = from_os_error(exc, str(op)) or _bug(agent, op, exc)
    except NotOurs as exc:
        refused = Refused(codes.AGENT_BUG, "the state folder was tampered with: {}".format(exc))
    except Exception as exc:  # noqa: BLE001 - whatever it is, the agent goes on
        refused = _bug(agent, op, exc)
    took_ms = (time.monotonic() - started) * 1000.0
    if refused is not None:
        agent.log.write("{}: {}: {}".format(op, refused.code, refused)[:1000])
        return Frame(
            {
                "id": request.meta.get("id"),
                "ok": False,
                "code": refused.code,
                "detail": str(refused),
                "facts": refused.facts,
            }
        )
    if op not in _QUIET:
        agent.log.write("{}: done in {:.0f} ms".format(op, took_ms))
    return Frame(dict(reply.meta, id=request.meta.get("id"), ok=True), reply.body)


def _bug(agent: Agent, op: Any, exc: BaseException) -> Refused:
    try:
        lines = later.traceback.format_exc().strip().splitlines()
    except (ImportError, OSError):  # out of descriptors: the reply goes out without it
        lines = []
    for line in lines[-12:]:
        agent.log.write("  " + line)
    where = [line.strip() for line in lines if line.strip().startswith("File ")][-1:]
    text = "{}: {}: {}".format(op, type(exc).__name__, exc)
    return Refused(codes.AGENT_BUG, text[:1000], where=where)
