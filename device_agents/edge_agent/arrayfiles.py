"""Tensors in files, for the shell: ``.npy``, ``.json``, and raw bytes. No numpy, no pickle."""

from __future__ import annotations

import json
import re
import struct
from typing import Any, Dict, List, Tuple

from edgesdk.wire.frames import load_json
from edgesdk.wire.tensors import DTYPE_BYTES, TensorError, element_count
from edgesdk.wire.values import nest, unpack_values

__all__ = ["json_of", "npy_bytes", "read_json", "read_npy"]

_MAGIC = b"\x93NUMPY"
_MAX_HEADER = 1 << 12
_DESCR = re.compile(r"""['"]descr['"]: *['"]([<|=>])([?bifu])(\d{1,2})['"]""")
_ORDER = re.compile(r"""['"]fortran_order['"]: *(True|False)""")
_SHAPE = re.compile(r"""['"]shape['"]: *\(([0-9, ]{0,400})\)""")
_KINDS = {"b": "bool", "i": "int", "u": "uint", "f": "float"}


def read_npy(data: bytes) -> Tuple[str, List[int], bytes]:
    """Read the bytes of a ``.npy`` file: dtype name, shape, elements.

    Format: NEP 1, versions 1 to 3. Objects, and elements in the other byte order, are refused.

    Raises:
        TensorError: It is no such file, or its array cannot be sent.
    """
    if data[:6] != _MAGIC or len(data) < 12:
        raise TensorError("it is no .npy file")
    wide = data[6] > 1
    start = 12 if wide else 10
    size = struct.unpack_from("<I" if wide else "<H", data, 8)[0]
    if size > _MAX_HEADER or start + size > len(data):
        raise TensorError("its .npy header has {} bytes".format(size))
    header = data[start : start + size].decode("latin-1")
    descr, order, shape = (p.search(header) for p in (_DESCR, _ORDER, _SHAPE))
    if descr is None or order is None or shape is None or descr.group(2) == "?":
        raise TensorError("its .npy header is {!r}".format(header[:100]))
    kind, width = _KINDS[descr.group(2)], int(descr.group(3))
    dtype = kind if kind == "bool" else "{}{}".format(kind, 8 * width)
    if dtype not in DTYPE_BYTES or (descr.group(1) == ">" and width > 1):
        raise TensorError("its elements are {!r}".format(descr.group(0)))
    if order.group(1) == "True":
        raise TensorError("it is in Fortran order: save it with numpy.ascontiguousarray")
    extents = [int(n) for n in shape.group(1).replace(" ", "").split(",") if n]
    elements = data[start + size :]
    if any(n >= 1 << 48 for n in extents) or len(extents) > 32:
        raise TensorError("its shape is {}".format(extents[:32]))
    if element_count(extents) * DTYPE_BYTES[dtype] != len(elements):
        text = "its shape {} of {} does not fit its {} bytes"
        raise TensorError(text.format(extents, dtype, len(elements)))
    return dtype, extents, elements


def npy_bytes(dtype: str, shape: List[int], data: bytes) -> bytes:
    """Give a ``.npy`` file."""
    kind = {"bool": "b", "int": "i", "uint": "u", "float": "f"}[dtype.rstrip("0123456789")]
    width = DTYPE_BYTES[dtype]
    descr = "{}{}{}".format("|" if width == 1 else "<", kind, width)
    inner = "".join("{}, ".format(n) for n in shape)
    text = "{{'descr': '{}', 'fortran_order': False, 'shape': ({}), }}".format(descr, inner)
    header = text.encode("latin-1")
    header += b" " * (-(len(header) + 11) % 64) + b"\n"
    return _MAGIC + b"\x01\x00" + struct.pack("<H", len(header)) + header + data


def read_json(data: bytes) -> Any:
    """Read nested lists of numbers, or an object with such lists by input name.

    Raises:
        TensorError: It is no JSON.
    """
    try:
        return load_json(data)
    except ValueError as exc:
        raise TensorError("it is not JSON: {}".format(exc)) from None


def json_of(answer: Dict[str, Any], outputs: List[Dict[str, Any]]) -> bytes:
    """Give the document that the shell prints: what answered, and each output in nested lists.

    Numbers that JSON does not have (NaN and the infinities) become null.
    """
    shown = []
    for tensor in outputs:
        values = unpack_values(tensor["dtype"], tensor["data"])
        if tensor["dtype"].startswith("float"):
            values = [v if v - v == 0 else None for v in values]
        record = {key: tensor[key] for key in ("name", "dtype", "shape")}
        shown.append(dict(record, data=nest(values, tensor["shape"])))
    document = dict(answer, outputs=shown)
    return (json.dumps(document, allow_nan=False) + "\n").encode("utf-8")
