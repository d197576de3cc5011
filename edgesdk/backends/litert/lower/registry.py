"""Which operators of ONNX are lowered: by whom, into what, and what the facts of one must be.

An operator is added in a module under `edgesdk.backends.litert.lower.ops`:

    @lowers("Relu", into="RELU")
    def lower_relu(site: Site) -> None: ...

``why_not`` looks at the facts of a node alone, as the plan does before there is a graph. The
same check runs before a node is lowered, so what the plan refuses is never lowered by accident.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgesdk.model.values import NodeFacts

if TYPE_CHECKING:
    from edgesdk.backends.litert.lower.site import Site

__all__ = ["Entry", "entry_of", "known_ops", "lowers"]

Lower = Callable[["Site"], None]
WhyNot = Callable[[NodeFacts], str | None]
Into = Callable[[NodeFacts], tuple[str, ...]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """How one operator of ONNX is lowered.

    Attributes:
        op: Its name.
        lower: Adds its operators to the graph.
        why_not: Says from the facts alone why a node of it is not lowered, or None.
        into: Names TFLite's operators for a node, the main one first.
        keeps_grid: Its first output lies on the grid of its first input, number for number, so
            rounding may as well be done before it.
        fuses: A Relu or Clip behind it may become its fused activation.
    """

    op: str
    lower: Lower
    why_not: WhyNot
    into: Into
    keeps_grid: bool = False
    fuses: bool = False


_ENTRIES: dict[str, Entry] = {}


def lowers(
    *ops: str,
    into: str | tuple[str, ...] | Into,
    why_not: WhyNot | None = None,
    keeps_grid: bool = False,
    fuses: bool = False,
) -> Callable[[Lower], Lower]:
    """Register a function that lowers ``ops`` of ONNX's own domain; see `Entry`."""

    def register(lower: Lower) -> Lower:
        for op in ops:
            assert op not in _ENTRIES, f"{op} has two lowerings"
            _ENTRIES[op] = Entry(
                op=op,
                lower=lower,
                why_not=why_not or _anything,
                into=into if callable(into) else _always(into),
                keeps_grid=keeps_grid,
                fuses=fuses,
            )
        return lower

    return register


def entry_of(op: str, domain: str = "") -> Entry | None:
    """Give how an operator is lowered, or None where it is not."""
    _load()
    return _ENTRIES.get(op) if domain in ("", "ai.onnx") else None


def known_ops() -> tuple[str, ...]:
    """Name every operator that is lowered, sorted."""
    _load()
    return tuple(sorted(_ENTRIES))


def _load() -> None:
    """Import every module of the package of lowerings, each of which registers its own."""
    from edgesdk.backends.litert.lower import ops

    if not _LOADED:
        for module in pkgutil.iter_modules(ops.__path__):
            importlib.import_module(f"{ops.__name__}.{module.name}")
        _LOADED.append(True)


_LOADED: list[bool] = []


def _anything(_: NodeFacts) -> str | None:
    return None


def _always(into: str | tuple[str, ...]) -> Into:
    names = (into,) if isinstance(into, str) else into

    def give(_: NodeFacts) -> tuple[str, ...]:
        return names

    return give
