"""Read what the compiler put into its operator: what it needs of a device, and what memory.

The operator's options hold a package of programs in a flatbuffer whose schema Google publishes
(https://github.com/google-coral/libedgetpu, executable/executable.fbs; field numbers are its).
One program loads the parameters that stay on the chip, where some do; another runs, and brings
with it what is streamed on every run.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from edgesdk.model._flatbuffer import FlatbufferError, Table, root_table
from edgesdk.model.tflite_graph import TfliteGraph
from edgesdk.profiles.compiler_values import CompilerRules

__all__ = ["CompiledPackage", "read_package", "read_packages"]

_IDENTIFIER = b"DWN1"
_MOST_PROGRAMS = 64
_LOADS_PARAMETERS = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class CompiledPackage:
    """What one compiled operator says of itself. Sizes in bytes.

    Attributes:
        runtime: The oldest version of the runtime that loads it.
        compiler: The compiler's name for its own version; may be empty.
        cached_bytes: Parameters that stay on the chip.
        streamed_bytes: Parameters that come along on every run.
        program_bytes: Instructions.
        input_bytes: What goes in on every run, padding and all.
        output_bytes: What comes out.
        tile_bytes: What activations take at most of the memory of one of its tiles.
        token: Models compiled together share it, and the memory for parameters; 0 for none.
    """

    runtime: int
    compiler: str
    cached_bytes: int
    streamed_bytes: int
    program_bytes: int
    input_bytes: int
    output_bytes: int
    tile_bytes: int
    token: int

    def to_json(self, cache_bytes: int) -> dict[str, Any]:
        """Give its figures in the words of an estimate; see `estimate_memory`."""
        return {
            "parameter_bytes": self.cached_bytes + self.streamed_bytes,
            "cache_bytes": cache_bytes,
            "cached_bytes": self.cached_bytes,
            "streamed_bytes": self.streamed_bytes,
            "program_bytes": self.program_bytes,
            "tile_bytes": self.tile_bytes,
            "runtime": self.runtime,
            "provenance": "measured",
        }


def read_packages(graph: TfliteGraph, rules: CompilerRules) -> list[CompiledPackage]:
    """Read those of a graph's compiled operators, as far as they can be read."""
    packages = [
        read_package(graph.custom_options(op))
        for op in graph.ops
        if op.is_custom and op.name == rules.compiled_op
    ]
    return [package for package in packages if package is not None]


def read_package(options: bytes) -> CompiledPackage | None:
    """Read a compiled operator's options; None where they are none of the compiler's."""
    at = options.find(_IDENTIFIER)
    if at < 4:
        return None
    try:
        return _read(options[at - 4 :])
    except FlatbufferError:
        return None


def _read(data: bytes) -> CompiledPackage:
    package = root_table(data, _IDENTIFIER)
    inner = _cut(data, package.span(1))
    places = list(root_table(inner, None).spans(0))[:_MOST_PROGRAMS]
    programs = [root_table(_cut(inner, place), None) for place in places]
    if not programs:
        raise FlatbufferError("it holds no program")
    loads = [each for each in programs if each.number(13, "h") == _LOADS_PARAMETERS]
    runs = [each for each in programs if each.number(13, "h") != _LOADS_PARAMETERS]
    return CompiledPackage(
        runtime=package.number(0, "i"),
        compiler=package.text(4)[:80],
        cached_bytes=sum(_size(each, 6) for each in loads),
        streamed_bytes=sum(_size(each, 6) for each in runs),
        program_bytes=sum(_size(one, 0) for each in programs for one in each.tables(5)),
        input_bytes=sum(max(0, one.number(1, "i")) for each in runs for one in each.tables(8)),
        output_bytes=sum(max(0, one.number(1, "i")) for each in runs for one in each.tables(9)),
        tile_bytes=max((each.number(12, "i") for each in runs), default=0),
        token=programs[0].number(14, "Q"),
    )


def _cut(data: bytes, place: tuple[int, int] | None) -> bytes:
    start, size = place or (0, 0)
    return data[start : start + size]


def _size(table: Table, field: int) -> int:
    place = table.span(field)
    return 0 if place is None else place[1]
