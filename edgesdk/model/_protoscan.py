"""Walk the bytes of an ONNX file before a parser builds objects out of them.

A message of two bytes becomes an object of a few hundred, and messages nest, so a small file
can ask for a lot of memory or a deep stack. This walk costs no memory, visits only what would
become an object (tensor data is stepped over), keeps caps on depth and number, and can tell a
file that stops early from one that never was a model.

Wire types and field numbers are those of the protobuf encoding and of onnx.proto.
"""

from __future__ import annotations

import importlib

__all__ = ["ScanError", "protobuf_errors", "scan_onnx"]

#: More messages than any graph people deploy has; each costs up to a few kilobytes when parsed.
MAX_MESSAGES = 3_000_000
MAX_FIELDS = 30_000_000
#: Levels of messages in messages. Every level of control flow costs three.
MAX_DEPTH = 60

# message kind -> {field number: kind of the message in it}
_MODEL = {7: "graph", 8: "leaf", 14: "leaf", 20: "training", 25: "function", 26: "leaf"}
_KINDS: dict[str, dict[int, str]] = {
    "model": _MODEL,
    "training": {1: "graph", 2: "graph", 3: "leaf", 4: "leaf"},
    "function": {7: "node", 9: "leaf", 11: "attribute", 12: "value", 14: "leaf"},
    "graph": {
        1: "node",
        5: "tensor",
        11: "value",
        12: "value",
        13: "value",
        14: "annotation",
        15: "sparse",
        16: "leaf",
    },
    "node": {5: "attribute", 9: "leaf", 10: "leaf"},
    "attribute": {
        5: "tensor",
        6: "graph",
        10: "tensor",
        11: "graph",
        14: "type",
        15: "type",
        22: "sparse",
        23: "sparse",
    },
    "tensor": {3: "leaf", 13: "leaf", 16: "leaf"},
    "sparse": {1: "tensor", 2: "tensor"},
    "annotation": {2: "leaf"},
    "value": {2: "type", 4: "leaf"},
    "type": {
        1: "tensor-type",
        4: "container",
        5: "container",
        7: "leaf",
        8: "tensor-type",
        9: "container",
    },
    "tensor-type": {2: "shape"},
    "container": {1: "type", 2: "type"},
    "shape": {1: "leaf"},
    "leaf": {},
}


class ScanError(ValueError):
    """The bytes are no ONNX model. ``truncated`` says that they look like the start of one."""

    def __init__(self, seen: str, *, truncated: bool = False) -> None:
        super().__init__(seen)
        self.truncated = truncated


def protobuf_errors() -> tuple[type[Exception], ...]:
    """Give what the protobuf library raises on bytes or objects it cannot take."""
    message = importlib.import_module("google.protobuf.message")
    return (message.DecodeError, message.EncodeError, ValueError)


def scan_onnx(data: bytes) -> None:
    """Walk ``data`` as a ModelProto.

    Raises:
        ScanError: It ends early, is not protobuf, has no graph, or would not be safe to parse.
    """
    seen_graph = False
    messages = fields = 0
    end = len(data)
    # what is still to be walked: start, end, fields that hold messages, depth
    stack: list[tuple[int, int, dict[int, str], int]] = [(0, end, _MODEL, 1)]
    while stack:
        at, stop, holds, depth = stack.pop()
        while at < stop:
            tag, at = _varint(data, at, stop, end)
            number, wire = tag >> 3, tag & 7
            fields += 1
            if number == 0 or fields > MAX_FIELDS:
                raise ScanError(
                    "it has a field with the number 0"
                    if number == 0
                    else "it has too many fields"
                )
            if wire == 0:
                _, at = _varint(data, at, stop, end)
                continue
            length = {1: 8, 5: 4}.get(wire, -1)
            if wire == 2:
                length, at = _varint(data, at, stop, end)
            if length < 0:
                raise ScanError(f"it has a field of wire type {wire} at byte {at}")
            if at + length > stop:
                raise _past_end(at, length, stop, end, model=holds is _MODEL)
            kind = holds.get(number) if wire == 2 else None
            if kind is not None:
                messages += 1
                seen_graph |= kind == "graph"
                if messages > MAX_MESSAGES:
                    raise ScanError(f"it has more than {MAX_MESSAGES} messages")
                if depth >= MAX_DEPTH:
                    raise ScanError(f"its messages nest deeper than {MAX_DEPTH} levels")
                if length:
                    stack.append((at, at + length, _KINDS[kind], depth + 1))
            at += length
    if not seen_graph:
        raise ScanError("it holds no graph")


def _past_end(at: int, length: int, stop: int, end: int, *, model: bool) -> ScanError:
    if stop == end and model and length < 1 << 31:
        missing = at + length - end
        return ScanError(f"it ends {missing} bytes early", truncated=True)
    return ScanError(f"a field at byte {at} reaches past the end of its message")


def _varint(data: bytes, at: int, stop: int, end: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        if at >= stop:
            raise ScanError("it ends within a number", truncated=stop == end)
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
        if shift > 63:
            raise ScanError(f"it has a number of more than ten bytes at byte {at}")
