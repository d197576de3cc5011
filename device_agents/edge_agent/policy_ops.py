"""The operations about trust: ``auth``, ``vouch`` and ``trust``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Dict

from edge_agent import asking, later
from edge_agent.refusals import Refused
from edgesdk.wire import codes
from edgesdk.wire.frames import Frame

if TYPE_CHECKING:
    from edge_agent.agent import Agent

__all__ = ["auth", "trust", "vouch"]

_TEXTS = ("signers", "revoked")
_SWITCHES = ("require", "remote")


def _long_text(meta: Dict[str, Any], name: str, most: int) -> str:
    value = meta.get(name, "")
    if not isinstance(value, str) or len(value) > most:
        raise Refused(
            codes.BAD_REQUEST, "{} is no text of at most {} characters".format(name, most)
        )
    return value


def auth(agent: Agent, ctx: Any, meta: Dict[str, Any], body: bytes) -> Frame:
    """Refuse a proof: where one is asked for, the gate of the line has heard it already."""
    raise Refused(codes.BAD_REQUEST, "nobody asks for a key here")


def vouch(agent: Agent, ctx: Any, meta: Dict[str, Any], body: bytes) -> Frame:
    """Check a signature before anything of its bundle is sent, and keep it."""
    bundle = asking.sha256(meta, "bundle")
    statement = _long_text(meta, "statement", 1 << 16)
    signature = _long_text(meta, "signature", 1 << 17)
    return Frame(agent.policy.vouch(bundle, statement, signature))


def trust(agent: Agent, ctx: Any, meta: Dict[str, Any], body: bytes) -> Frame:
    """Say what is demanded; change it where a host may."""
    changes = meta.get("set")
    if changes is not None:
        if not isinstance(changes, dict) or set(changes) - set(_TEXTS + _SWITCHES):
            raise Refused(
                codes.BAD_REQUEST,
                "set holds something else than {}".format(", ".join(_TEXTS + _SWITCHES)),
            )
        for name in set(_TEXTS) & set(changes):
            _long_text(changes, name, 1 << 17)
        for name in set(_SWITCHES) & set(changes):
            asking.flag(changes, name)
        now = agent.policy.files.demands()
        if now.is_set and not now.remote:
            raise Refused(
                codes.NOT_TRUSTED,
                "what this device demands was set before, and no host may change it: run "
                "`edge-agent trust` on the device",
                why="set-before",
            )
        if not ctx.is_proven:
            raise Refused(
                codes.NOT_AUTHENTICATED,
                "on a line without a key anybody could set what this device demands: run "
                "`edge-agent trust` on the device",
            )
        try:
            agent.policy.files.configure(changes)
        except later.signing_keys.KeysError as exc:
            raise Refused(
                codes.BAD_REQUEST, "cannot set what is demanded: {}".format(exc)
            ) from exc
    return Frame(dict(agent.policy.describe(), challenge=agent.policy.challenge))
