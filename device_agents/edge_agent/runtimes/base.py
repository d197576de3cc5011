"""What every runtime module gives to the worker, and tensors before anybody needs numpy."""

from __future__ import annotations

from typing import Any, Callable, Dict, List, Sequence, Tuple

__all__ = ["Part", "RawTensor", "RuntimeFailed", "by_name_or_position", "whole_number"]


class RuntimeFailed(Exception):
    """A runtime refuses a model, an option or an input; the text says which and why."""


class RawTensor:
    """A tensor as it travels: dtype name, shape, little-endian bytes."""

    __slots__ = ("data", "dtype", "shape")

    def __init__(self, dtype: str, shape: Sequence[int], data: Any) -> None:
        self.dtype = dtype
        self.shape = list(shape)
        self.data = data


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
