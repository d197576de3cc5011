"""The gate that every operation passes: what a device may take in, switch to or run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Dict, Optional

from edgesdk.wire.manifest import is_sha256
from edgesdk.wire.ops import SLOTS

if TYPE_CHECKING:
    from edge_agent.agent import Agent

__all__ = ["gate"]

#: Operations that name a bundle and neither bring it in nor run it; all others are refused.
_FREE = ("vouch", "confirm")


def gate(agent: Agent, op: str, meta: Dict[str, Any]) -> None:
    """Refuse what would bring in, switch to or run a bundle that this device does not trust.

    What is current may be run by its slot's name or its id: it is what the device does.

    Raises:
        Refused: ``not-trusted``.
    """
    if op in _FREE:
        return
    named = [meta.get("bundle")]  # type: List[Any]
    if op == "rollback":
        named.append(agent.slots.bundle("previous"))
    for field in ("release", "against"):
        release = meta.get(field)
        if isinstance(release, str) and release in SLOTS:
            release = agent.slots.bundle(release)
        if release != agent.slots.bundle("current"):
            named.append(release)
    for bundle in named:
        if is_sha256(bundle):  # else there is none, or the operation itself says what is wrong
            agent.policy.demand(bundle, _name_of(agent, op, bundle))


def _name_of(agent: Agent, op: str, bundle: str) -> Optional[str]:
    """The name in a bundle's manifest, if that is here already."""
    if op == "stage":  # which brings it only now; commit asks again
        return None
    manifest = agent.releases.manifest(bundle) or agent.store.pending_manifest(bundle)
    return None if manifest is None else str(manifest["name"])
