"""What every runtime module gives to the worker, and tensors before anybody needs numpy."""

from __future__ import annotations

from typing import Any, Callable, Dict, List, Optional, Sequence, Tuple

__all__ = [
    "OpRecord",
    "Part",
    "Profiling",
    "RawTensor",
    "RuntimeFailed",
    "by_name_or_position",
    "op_record",
    "whole_number",
]

OpRecord = Dict[str, Any]
_MAX_TEXT = 200
_MAX_US = 1e12


class RuntimeFailed(Exception):
    """A runtime refuses a model, an option or an input; the text says which and why."""


class RawTensor:
    """A tensor as it travels: dtype name, shape, little-endian bytes."""

    __slots__ = ("data", "dtype", "shape")

    def __init__(self, dtype: str, shape: Sequence[int], data: Any) -> None:
        self.dtype = dtype
        self.shape = list(shape)
        self.data = data


class Profiling:
    """How to look into a part, apart from any measurement.

    Attributes:
        feeds: What `Part.prepare` gave.
        runs: How often to run it at most.
        folder: Empty, for files of the runtime's own; removed afterwards.
        deadline: By `time.monotonic`; no run is begun after it.
    """

    __slots__ = ("deadline", "feeds", "folder", "runs")

    def __init__(self, feeds: Any, *, runs: int, folder: str, deadline: float) -> None:
        self.feeds = feeds
        self.runs = runs
        self.folder = folder
        self.deadline = deadline


class Part:
    """A loaded part. Values are `RawTensor` or numpy arrays; `prepare` takes either."""

    def __init__(self, part: Dict[str, Any]) -> None:
        #: Names of what it takes and gives, in the words of the manifest.
        self.input_names = [value["name"] for value in part["inputs"]]  # type: List[str]
        self.output_names = [value["name"] for value in part["outputs"]]  # type: List[str]

    def prepare(self, values: Dict[str, Any]) -> Any:
        """Turn named values into what `bind` takes; done outside of any timing."""
        raise NotImplementedError

    def bind(self, feeds: Any) -> Tuple[Callable[..., Any], Tuple[Any, ...]]:
        """Give the runtime's own call and its arguments: exactly what is timed."""
        raise NotImplementedError

    def named(self, result: Any) -> Dict[str, Any]:
        """Turn what the call gave into named values."""
        raise NotImplementedError

    def describe(self) -> Dict[str, Any]:
        """How it really runs: devices, threads, who took which nodes."""
        raise NotImplementedError

    def twin(self) -> Optional[Part]:
        """Give a part that may run while this one does; itself where that is safe.

        May be left out: None has the model loaded once more.
        """
        return None

    def profile(self, asked: Profiling) -> Tuple[List[OpRecord], str]:
        """Say what it runs where, op by op, and how the times were taken. May be left out.

        What is timed by `bind` stays as it is: a runtime that must be told to keep times is
        loaded a second time for it.

        Returns:
            Records in the order in which the ops run (see `op_record`), and a few words on
            how their times were taken.

        Raises:
            RuntimeFailed: The runtime does not tell; the text says why.
        """
        raise NotImplementedError


def op_record(
    op: str,
    name: str,
    where: str,
    *,
    accelerator: Optional[bool],
    us: Optional[float] = None,
    derived: bool = False,
    precision: Optional[str] = None,
    count: int = 1,
) -> OpRecord:
    """Describe one op as a runtime ran it; text is cut to what a report can show.

    Args:
        op: Its type in the runtime's words (``Conv``, ``CONV_2D``, ``Convolution``).
        name: Of the node, or the nodes that became it (separated by commas), as far as the
            runtime has names.
        where: What ran it, in the runtime's words (``CPUExecutionProvider``, ``XNNPACK``,
            ``EDGETPU``, ``NPU``, ``DLA0``).
        accelerator: Whether that is something other than the CPU; None if nobody can tell.
        us: The median time of one inference that it took, in microseconds; None if unknown.
        derived: Whether the time was worked out rather than measured by the runtime.
        precision: What it computed in (``int8``, ``float16``), as far as the runtime tells.
        count: How many ops this stands for: a long list ends in sums.
    """
    known = us is not None and 0.0 <= us <= _MAX_US
    return {
        "op": str(op)[:_MAX_TEXT],
        "name": str(name)[:_MAX_TEXT],
        "where": str(where)[:_MAX_TEXT],
        "accelerator": accelerator,
        "us": float(us) if known and us is not None else None,
        "derived": bool(derived),
        "precision": None if precision is None else str(precision)[:_MAX_TEXT],
        "count": int(count),
    }


def whole_number(options: Dict[str, Any], name: str) -> int:
    """An option that is a count, or 0 where it is not given.

    Raises:
        RuntimeFailed: It is something else.
    """
    value = options.get(name)
    if value is None:
        return 0
    if type(value) is not int or not 0 <= value <= 1024:
        raise RuntimeFailed("option {} is {!r} (expected a small count)".format(name, value))
    return value


def by_name_or_position(wanted: List[str], offered: List[str], kind: str) -> List[int]:
    """Pair the manifest's names with a model's own: by name if all are there, else by position.

    Converters rename the inputs and outputs of a graph, but keep their order.

    Raises:
        RuntimeFailed: There are more names than the model has.
    """
    if all(name in offered for name in wanted):
        return [offered.index(name) for name in wanted]
    if len(wanted) != len(offered):
        raise RuntimeFailed(
            "the model has the {} {} (expected {})".format(
                kind, ", ".join(offered)[:300], ", ".join(wanted)[:300]
            )
        )
    return list(range(len(wanted)))
