"""What is inside compiled parts, as lines for people: operators by who runs them, estimates."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from edgesdk.bundle.as_built import is_number, size_words

__all__ = ["inside_lines", "moved_lines"]

#: What a compiler's record calls an operator that the accelerator runs.
_TAKEN = ("mapped", "placed")
_MOST_NAMES = 6
_MOST_MOVED = 5
#: No graph has more operators; a manifest may claim so.
_MOST_OPS = 1 << 32


def inside_lines(record: object) -> tuple[str, ...]:
    """Put what a manifest's ``as_built`` says of compiled parts into words, a line for each.

    The manifest may come from elsewhere: what has another form than expected is left out.
    """
    placement = record.get("placement") if isinstance(record, Mapping) else None
    parts = placement.get("parts") if isinstance(placement, Mapping) else None
    lines = []
    for part in _mappings(parts):
        inside = part.get("inside")
        if isinstance(inside, Mapping) and (line := _line(inside)):
            lines.append(f"part {part.get('index')}: {line}")
    return tuple(lines)


def moved_lines(record: object) -> tuple[str, ...]:
    """Name the nodes that a manifest's ``as_built`` has elsewhere than they were planned.

    The manifest may come from elsewhere: what has another form than expected is left out.
    """
    placement = record.get("placement") if isinstance(record, Mapping) else None
    moved = placement.get("moved") if isinstance(placement, Mapping) else None
    lines = [
        f"{each.get('node')} ({each.get('op')}), planned for {each.get('planned')}, was built "
        f"for {each.get('built')}: {each.get('reason')}"
        for each in _mappings(moved)
    ]
    more = len(lines) - _MOST_MOVED
    if more > 0:
        lines[_MOST_MOVED:] = [f"and {more} more nodes"]
    return tuple(lines)


def _line(inside: Mapping[str, object]) -> str:
    taken = 0
    left: dict[str, int] = {}
    for entry in _mappings(inside.get("ops")):
        count = entry.get("count")
        if not isinstance(count, int) or not 0 <= count <= _MOST_OPS:
            continue
        if entry.get("status") in _TAKEN:
            taken += count
        else:
            name = str(entry.get("op"))
            left[name] = left.get(name, 0) + count
    total = taken + sum(left.values())
    if not total:
        return ""
    how = "foretold" if inside.get("provenance") == "assumed" else "as compiled"
    text = f"{taken} of {total} operators ({taken / total:.1%}) on the accelerator, {how}"
    if left:
        names = [f"{count} {name}" for name, count in sorted(left.items())]
        more = ", ..." if len(names) > _MOST_NAMES else ""
        text += f"; left: {', '.join(names[:_MOST_NAMES])}{more}"
    return text + _estimate(inside.get("estimate"))


def _estimate(estimate: object) -> str:
    if not isinstance(estimate, Mapping):
        return ""
    said = []
    took = estimate.get("inference_us")
    if isinstance(took, int) and is_number(took):
        said.append(f"{took / 1000:.3g} ms")
    for key, words in (("sram_bytes", "SRAM"), ("dram_bytes", "DRAM")):
        value = estimate.get(key)
        if isinstance(value, int) and value and is_number(value):
            said.append(f"{size_words(value)} {words}")
    where = estimate.get("system_config")
    on = f" on {where}" if isinstance(where, str) else ""
    return f"; estimated{on}: {', '.join(said)}" if said else ""


def _mappings(values: object) -> Iterable[Mapping[str, object]]:
    if not isinstance(values, list | tuple):
        return ()
    return (each for each in values if isinstance(each, Mapping))
