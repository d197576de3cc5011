"""Shorten a .tflite file to its first ops, without a schema, by changing a few numbers.

The shortened file begins as the whole one does, so that the time an op takes can be told from
two of them. It is a flatbuffer (https://flatbuffers.dev/internals/); the fields are those of
https://github.com/tensorflow/tensorflow/blob/master/tensorflow/lite/schema/schema.fbs: the
model's subgraphs, a subgraph's outputs and operators, an operator's inputs and outputs.
"""

from __future__ import annotations

import struct
from typing import List, Tuple

__all__ = ["BadModel", "beginning", "op_tensors"]

_SUBGRAPHS = 2
_OUTPUTS = 2
_OPERATORS = 3
_OP_INPUTS = 1
_OP_OUTPUTS = 2
_MAX_ENTRIES = 1 << 24


class BadModel(ValueError):
    """The bytes are no .tflite model, or one whose offsets lead out of it."""


def _u32(data: bytes, at: int) -> int:
    if not 0 <= at <= len(data) - 4:
        raise BadModel("an offset leads out of the file")
    return int(struct.unpack_from("<I", data, at)[0])


def _field(data: bytes, table: int, number: int) -> int:
    """Where a table keeps the offset of a field.

    Raises:
        BadModel: It has none.
    """
    start = table - struct.unpack("<i", struct.pack("<I", _u32(data, table)))[0]
    if not 0 <= start <= len(data) - 4:
        raise BadModel("a table's description lies outside of the file")
    size = struct.unpack_from("<H", data, start)[0]
    place = start + 4 + 2 * number
    if 6 + 2 * number > size or place > len(data) - 2:
        raise BadModel("a table has no field {}".format(number))
    offset = struct.unpack_from("<H", data, place)[0]
    if not offset:
        raise BadModel("a table has no field {}".format(number))
    return int(table + offset)


def _vector(data: bytes, table: int, number: int) -> Tuple[int, int]:
    """Where a vector's entries begin, and how many there are."""
    place = _field(data, table, number)
    start = place + _u32(data, place)
    count = _u32(data, start)
    if count > _MAX_ENTRIES or start + 4 + 4 * count > len(data):
        raise BadModel("a list leads out of the file")
    return start + 4, count


def _main_graph(data: bytes) -> int:
    place, count = _vector(data, _u32(data, 0), _SUBGRAPHS)
    if not count:
        raise BadModel("it has no graph")
    return place + _u32(data, place)


def _numbers(data: bytes, table: int, number: int) -> List[int]:
    try:
        place, count = _vector(data, table, number)
    except BadModel:
        return []
    return list(struct.unpack_from("<{}i".format(count), data, place))


def op_tensors(data: bytes) -> List[Tuple[List[int], List[int]]]:
    """Give the numbers of the tensors that each op of the main graph takes and gives.

    Raises:
        BadModel: It is no such file.
    """
    place, count = _vector(data, _main_graph(data), _OPERATORS)
    found = []
    for index in range(count):
        at = place + 4 * index
        table = at + _u32(data, at)
        found.append((_numbers(data, table, _OP_INPUTS), _numbers(data, table, _OP_OUTPUTS)))
    return found


def beginning(data: bytes, count: int) -> bytes:
    """Give the same model with its first ``count`` ops alone.

    Its outputs are what no op that is left reads, so that nothing may be left out as unused.

    Raises:
        BadModel: It is no such file.
    """
    ops = op_tensors(data)
    if not 0 < count <= len(ops):
        raise BadModel("it has {} ops (asked for {})".format(len(ops), count))
    read = {tensor for inputs, _ in ops[:count] for tensor in inputs}
    unread = [t for _, outputs in ops[:count] for t in outputs if t >= 0 and t not in read]
    graph = _main_graph(data)
    place, _ = _vector(data, graph, _OPERATORS)
    changed = bytearray(data)
    struct.pack_into("<I", changed, place - 4, count)
    # the new list of outputs goes to the end of the file, where any length fits
    changed += bytes(-len(changed) % 4)
    field = _field(data, graph, _OUTPUTS)
    struct.pack_into("<I", changed, field, len(changed) - field)
    changed += struct.pack("<I{}i".format(len(unread)), len(unread), *unread)
    return bytes(changed)
