"""What measuring decided while a bundle was built, as lines for people."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TypeGuard

__all__ = ["as_built_lines", "is_number", "size_words"]

_MOST_OUTPUTS = 4
#: Whole numbers of JSON have any length; what is larger than this counts nothing.
_LARGEST = 1e300


def as_built_lines(record: object) -> tuple[str, ...]:
    """Put a manifest's ``as_built`` into words; nothing where the build left no choice.

    The manifest may come from elsewhere: what has another form than expected is left out.
    """
    if not isinstance(record, Mapping) or "quantized_nodes" not in record:
        return ()
    lines = [
        _nodes(record),
        _kernels(record.get("int8_kernels")),
        _nearness(record.get("sqnr_db")),
        *(_mean(mean) for mean in _mappings(record.get("means"))),
        _budget(record.get("budget")),
        _pruned(record.get("pruned")),
    ]
    return tuple(line for line in lines if line)


def _nodes(record: Mapping[str, object]) -> str:
    nodes = list(_mappings(record.get("left_float")))
    text = f"{_number(record.get('quantized_nodes'))} nodes in {record.get('precision')}"
    if record.get("calibration_samples"):
        text += f" with {_number(record.get('calibration_samples'))} samples"
    ops = ", ".join(sorted({str(each.get("op")) for each in nodes}))
    return f"{text}, {len(nodes)} left in float ({ops})" if nodes else text


def _kernels(kernels: object) -> str:
    if not isinstance(kernels, Mapping):
        return ""
    found, planned = _number(kernels.get("found")), _number(kernels.get("planned"))
    return f"{found} of {planned} compute nodes in 8-bit kernels"


def _nearness(by_output: object) -> str:
    if not isinstance(by_output, Mapping) or not by_output:
        return ""
    shown = ", ".join(
        f"{name} {value:.1f} dB" if is_number(value) else f"{name} exact or lost"
        for name, value in list(by_output.items())[:_MOST_OUTPUTS]
    )
    return f"signal over noise against float: {shown}"


def _mean(mean: Mapping[str, object]) -> str:
    state = "on" if mean.get("on") else "off"
    before, after = _number(mean.get("before_db")), _number(mean.get("after_db"))
    return f"{mean.get('name')} {state}: {before} to {after} dB"


def _budget(budget: object) -> str:
    if not isinstance(budget, Mapping):
        return ""
    after, limit = _number(budget.get("after")), _number(budget.get("limit"))
    text = f"{budget.get('metric')} drops by {after} (limit {limit})"
    if budget.get("metric") == "noise":
        text = f"noise {after} at the worst output (limit {limit})"
    kept = budget.get("kept")
    if not isinstance(kept, list | tuple) or not kept:
        return text
    text += (
        f", {_number(budget.get('before'))} with all in 8 bits; {len(kept)} nodes went back to "
        f"float for it: {size_words(budget.get('bytes_added'))} more"
    )
    expected = budget.get("expected_time")
    if isinstance(expected, float):
        text += f", {expected:.2f} times the time (assumed)"
    return f"{text}; {_number(budget.get('evaluations'))} evaluations"


def _pruned(pruned: object) -> str:
    if not isinstance(pruned, Mapping):
        return ""
    before, after = (
        size_words(pruned.get("bytes_before")),
        size_words(pruned.get("bytes_after")),
    )
    text = f"pruned {pruned.get('pattern')}: weights {before} to {after} compressed"
    drop = pruned.get("drop")
    return text if drop is None else f"{text}, the metric drops by {_number(drop)}"


def _mappings(values: object) -> Iterable[Mapping[str, object]]:
    if not isinstance(values, list | tuple):
        return ()
    return (each for each in values if isinstance(each, Mapping))


def is_number(value: object) -> TypeGuard[int | float]:
    """Say whether a value from a manifest is a number that a float can hold."""
    return isinstance(value, int | float) and abs(value) < _LARGEST


def _number(value: object) -> str:
    return f"{value:.4g}" if is_number(value) else "?"


def size_words(value: object) -> str:
    """Put a number of bytes into words."""
    if not isinstance(value, int) or not is_number(value):
        return "?"
    return f"{value / 1024:.1f} KiB" if value < 1 << 20 else f"{value / (1 << 20):.1f} MiB"
