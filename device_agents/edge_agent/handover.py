"""What lies around the runtime's own call: bytes into the chain, and out of it. Worker only.

Taken apart from the timed runs, by whole inferences as an application asks for them, and once
the timed runs are over. The outputs are looked at as well: a model that gives NaN is fast, but
of no use.
"""

from __future__ import annotations

import math
import statistics
import struct
import sys
import time
from typing import TYPE_CHECKING, Any, Callable, Dict, List

from edge_agent.runtimes.base import RawTensor

if TYPE_CHECKING:
    from edge_agent.chain import Chain

__all__ = ["count_odd", "time_handover"]

_RUNS = 30
_BUDGET_S = 0.5
#: Elements of one output that are looked at where there is no numpy to do it.
_MOST_LOOKED_AT = 1 << 18
_CODES = {"float16": "e", "float32": "f", "float64": "d"}


def count_odd(value: Any) -> int:
    """Count the elements of a float output that are NaN or infinite."""
    if not isinstance(value, RawTensor):
        numpy = sys.modules.get("numpy")
        if numpy is None or not hasattr(value, "dtype") or value.dtype.kind not in "fc":
            return 0
        return int(value.size - numpy.count_nonzero(numpy.isfinite(value)))
    code = _CODES.get(value.dtype)
    if code is None:
        return 0
    size = struct.calcsize(code)
    data = bytes(memoryview(value.data)[: _MOST_LOOKED_AT * size])
    numbers = struct.unpack("<{}{}".format(len(data) // size, code), data)
    return sum(not math.isfinite(number) for number in numbers)


def time_handover(
    chain: Chain,
    make_inputs: List[Callable[[], Dict[str, RawTensor]]],
) -> Dict[str, Any]:
    """Run whole inferences and say how their time is made up.

    Args:
        chain: What is loaded.
        make_inputs: Gives the tensors of a vector out of its bytes.

    Returns:
        ``runs``, and medians in nanoseconds: ``in_ns`` (bytes to what the first runtime
        takes), ``calls_ns`` (all runtimes' own calls), ``between_ns`` (from part to part),
        ``out_ns`` (from the last runtime to bytes); ``odd`` is the count by output of elements
        that are NaN or infinite, over one inference of each vector.
    """
    found = {"in_ns": [], "calls_ns": [], "between_ns": [], "out_ns": []}  # type: Dict[str, Any]
    odd = {}  # type: Dict[str, int]
    deadline = time.monotonic() + _BUDGET_S
    index = 0
    while index < max(_RUNS, len(make_inputs)):
        if index >= len(make_inputs) and time.monotonic() > deadline:
            break
        make = make_inputs[index % len(make_inputs)]
        outputs, spent = _once(chain, make)
        for name, ns in spent.items():
            found[name].append(max(0, ns))
        if index < len(make_inputs):
            for name, value in outputs.items():
                odd[name] = odd.get(name, 0) + count_odd(value)
        index += 1
    result = {name: statistics.median(values) for name, values in found.items()}
    return dict(result, runs=index, odd={name: n for name, n in odd.items() if n})


def _once(chain: Chain, make: Callable[[], Dict[str, RawTensor]]) -> Any:
    clock = time.perf_counter_ns
    began = clock()
    values = dict(make())  # type: Dict[str, Any]
    calls = 0
    first = last = began
    for number, part in enumerate(chain.parts):
        feeds = chain.feeds(part, values)
        function, arguments = part.bind(feeds)
        start = clock()
        result = function(*arguments)
        last = clock()
        calls += last - start
        if number == 0:
            first = start
        values.update(part.named(result))
    outputs = {name: values[name] for name in chain.outputs if name in values}
    for value in outputs.values():
        if not isinstance(value, RawTensor):
            from edge_agent.runtimes.arrays import to_raw

            to_raw(value)
    end = clock()
    spent = {
        "in_ns": first - began,
        "calls_ns": calls,
        "between_ns": last - first - calls,
        "out_ns": end - last,
    }
    return outputs, spent
