"""What stays in float by name: whether a model has such nodes, so that no typo passes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable
from functools import lru_cache

from edgesdk.near import near_misses

__all__ = ["why_not_kept"]

_SHOWN = 8


def why_not_kept(
    keep_float: Collection[str], names: Collection[str], ops: Iterable[str]
) -> tuple[str, str] | None:
    """Say what is wrong with a list of names to keep in float, with a hint, or None.

    Args:
        keep_float: Node names and operator types.
        names: The names of the model's nodes, each as often as it is there; empty where one is
            missing. Simplifying replaces those that are missing or repeated, and what it gives
            instead (``node_3``) may be named as well.
        ops: The operator types of the model. One that only ONNX knows is fine, so that one list
            does for many models.
    """
    if isinstance(keep_float, str):
        return f"it is the text {keep_float!r} (expected a list of names)", (
            f"write [{keep_float!r}]"
        )
    counts, types = Counter(names), sorted(set(ops))
    replaced = {name for name, count in counts.items() if name and count > 1}
    replaced |= {"node"} if "" in counts else set()
    for name in keep_float:
        if (name and name in counts) or name in types or name in _known_to_onnx():
            continue
        base, _, number = name.rpartition("_")
        if (base in replaced and number.isdecimal()) or name in replaced:
            continue
        return f"the model has no node and ONNX no operator type {name!r}", _hint(
            name, [*filter(None, counts)], types
        )
    return None


def _hint(name: str, names: list[str], types: list[str]) -> str:
    plain = {one.lower(): one for one in (*names, *types)}
    near = [plain[one] for one in near_misses(name, list(plain))]
    if near:
        return f"did you mean {' or '.join(near)}?"
    listed = ", ".join(types[:_SHOWN]) + (" ..." if len(types) > _SHOWN else "")
    return f"name a node, or an operator type: it has {listed or 'none'}"


@lru_cache(maxsize=1)
def _known_to_onnx() -> frozenset[str]:
    import onnx

    return frozenset(schema.name for schema in onnx.defs.get_all_schemas())
