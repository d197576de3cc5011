"""Kernels that only convert back and forth: the rule that plan and build share.

Knows names only, so it works on the facts of a source graph and on a prepared graph alike.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Literal

from edgesdk.profiles.values import SchemeRules

__all__ = ["ALONE", "Kernel", "Role", "find_lonely", "only_a_part", "roles_of"]

Role = Literal["compute", "elementwise", "same-scale"]

ALONE = "no neighbour computes in 8 bits, so converting would cost more than it saves"


@dataclass(frozen=True, slots=True, kw_only=True)
class Kernel:
    """What the rule looks at: the 8-bit activations that a kernel reads and makes, by name."""

    role: Role
    reads: tuple[str, ...]
    results: tuple[str, ...]


def roles_of(rules: SchemeRules) -> dict[str, Role]:
    """Give the role of every operator that has a kernel of its own."""
    return {
        **dict.fromkeys(rules.same_scale, "same-scale"),
        **dict.fromkeys(rules.elementwise, "elementwise"),
        **dict.fromkeys(rules.compute, "compute"),
    }


def only_a_part(op: str) -> str:
    """Say why an operator that others absorb stays in float where none does."""
    return f"{op} is computed in 8 bits only as a part of another operator"


def find_lonely(kernels: Mapping[str, Kernel], graph_inputs: Collection[str]) -> set[str]:
    """Give the keys of kernels that only convert back and forth.

    A kernel that computes stays. Any other stays where an 8-bit kernel makes one of its inputs
    (a graph input will do for one that only moves values) and an 8-bit kernel reads its result.
    What falls may make its neighbours fall, and only they are looked at again.
    """
    makers = {name: key for key, one in kernels.items() for name in one.results}
    readers: dict[str, set[str]] = {}
    for key, one in kernels.items():
        for name in one.reads:
            readers.setdefault(name, set()).add(key)
    lonely: set[str] = set()
    waiting = list(kernels)
    while waiting:
        key = waiting.pop()
        one = kernels[key]
        if key in lonely or one.role == "compute":
            continue
        fed = any(
            name in makers or (one.role == "same-scale" and name in graph_inputs)
            for name in one.reads
        )
        if fed and any(readers.get(name) for name in one.results):
            continue
        lonely.add(key)
        for name in one.reads:
            readers[name].discard(key)
            waiting += [makers[name]] if name in makers else []
        for name in one.results:
            makers.pop(name, None)
            waiting += readers.get(name, ())
    return lonely
