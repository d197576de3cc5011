"""The operations that decide which release a device has: activate, roll back, confirm, tidy."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Dict

from edge_agent import asking, later
from edge_agent.probation import PROBATION_S
from edge_agent.refusals import Refused
from edgesdk.wire import codes
from edgesdk.wire.frames import Frame
from edgesdk.wire.ops import SLOTS

if TYPE_CHECKING:
    from edge_agent.agent import Agent

__all__ = ["activate", "confirm", "gc", "releases", "rollback", "slot_states"]

_MAX_PROBATION_S = 30 * 86_400.0


def slot_states(agent: Agent) -> Dict[str, Any]:
    """What is in each slot, for people."""
    states = {}  # type: Dict[str, Any]
    for slot in SLOTS:
        bundle = agent.slots.bundle(slot)
        known = None if bundle is None else agent.releases.describe(bundle)
        if bundle is None:
            states[slot] = None
            continue
        known = known or {"name": "", "precision": "", "target": "", "checked": False}
        states[slot] = {
            "bundle": bundle,
            "name": known["name"],
            "precision": known["precision"],
            "target": known["target"],
            "since": agent.slots.since(slot),
            "verified": known["checked"],
            "confirmed": agent.slots.is_confirmed(slot),
        }
    return states


def _whole_state(agent: Agent) -> Dict[str, Any]:
    return {
        "slots": slot_states(agent),
        "probation": agent.probation.state(),
        "returned": agent.slots.returned(),
    }


def activate(agent: Agent, ctx: Any, meta: Dict[str, Any], body: bytes) -> Frame:
    """Make a release current that has passed its check here and is fast enough."""
    bundle, manifest = agent.releases.need(asking.sha256(meta, "bundle"))
    wanted_s = asking.number(meta, "probation_s", 0, _MAX_PROBATION_S, default=PROBATION_S)
    max_latency_us = asking.microseconds(meta, "max_latency_us")
    if not agent.releases.has_passed(bundle):
        raise Refused(
            codes.CHECK_FAILED,
            "cannot activate {}: it has not passed its check vectors on this device".format(
                bundle[:12]
            ),
            bundle=bundle,
        )
    probe = later.probe
    probe.require(agent, bundle, probe.bound_of(agent, bundle, manifest, max_latency_us))
    agent.releases.part_paths(bundle, manifest)
    with agent.store.lock:  # what tidies up removes whatever no slot has
        agent.releases.need(bundle)
        agent.probation.activate(bundle, wanted_s=wanted_s, max_latency_us=max_latency_us)
    return Frame(_whole_state(agent))


def rollback(agent: Agent, ctx: Any, meta: Dict[str, Any], body: bytes) -> Frame:
    """Make the previous release current again."""
    why = asking.line(meta, "why") or "a host asked for it"
    bundle = agent.slots.bundle("previous")
    if bundle is not None:
        agent.releases.part_paths(*agent.releases.need(bundle))
    agent.probation.rollback(why)
    return Frame(_whole_state(agent))


def confirm(agent: Agent, ctx: Any, meta: Dict[str, Any], body: bytes) -> Frame:
    """End the probation of the current release well."""
    current = agent.slots.bundle("current")
    if current is None:
        raise Refused(codes.NOT_FOUND, "this device has no current release", slot="current")
    if meta.get("bundle") is not None and asking.sha256(meta, "bundle") != current:
        raise Refused(
            codes.NOT_FOUND,
            "release {} is not current, {} is".format(str(meta["bundle"])[:12], current[:12]),
            bundle=meta["bundle"],
            current=current,
        )
    ended = agent.probation.confirm(current)
    return Frame(dict(_whole_state(agent), ended=ended))


def releases(agent: Agent, ctx: Any, meta: Dict[str, Any], body: bytes) -> Frame:
    """List the releases here."""
    found = [agent.releases.describe(bundle) for bundle in agent.releases.ids()]
    return Frame({"releases": [release for release in found if release is not None]})


def gc(agent: Agent, ctx: Any, meta: Dict[str, Any], body: bytes) -> Frame:
    """Remove releases and engines that nobody needs, or one release that is named."""
    budget = only = None
    if meta.get("bundle") is not None:
        only = asking.sha256(meta, "bundle")
    if meta.get("budget_bytes") is not None:
        budget = asking.whole(meta, "budget_bytes", 0, 1 << 50)
    agent.path.repair()  # it must not lead to what goes now
    found = agent.releases.collect(budget, only)
    found["freed_bytes"] += later.finishing.collect_engines(agent)
    if agent.root.has_folder("samples"):
        found["freed_bytes"] += agent.packs.clear()
    return Frame(found)
