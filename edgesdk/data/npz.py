"""Reading ``.npz`` files a row at a time, trusting nothing that they declare.

numpy's own loader reads a whole array for the first row and believes the size in its header.
Here headers are read first and compared with what the archive says; rows are then decompressed
one after another, so memory holds one row per array whatever the file claims.
Arrays of Python objects are listed and never read: to load one is to run code.
"""

from __future__ import annotations

import lzma
import struct
import tokenize
import warnings
import zipfile
import zlib
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Any

from edgesdk.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    import numpy as np

__all__ = ["NpzArray", "list_arrays", "read_array", "read_rows", "refuse_objects"]

#: What the archive reader and the decompressors throw at bytes that are not an archive.
_DAMAGED = (
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    struct.error,
    EOFError,
    LookupError,
    NotImplementedError,
    OverflowError,
    ValueError,
)
#: What numpy throws at a header that is none.
_BAD_HEADER = (
    MemoryError,
    RecursionError,
    SyntaxError,
    TypeError,
    ValueError,
    tokenize.TokenError,
)
_MAX_MEMBERS = 10_000
_MAX_HEADER_BYTES = 10_000
_MAX_RANK = 32
#: An array in Fortran order has no rows that lie together, so it is held whole.
_MAX_HELD_BYTES = 1 << 30


@dataclass(frozen=True, slots=True, kw_only=True)
class NpzArray:
    """What the header of one array in a file says, after it has been checked."""

    name: str
    member: str
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    fortran: bool
    nbytes: int

    def __str__(self) -> str:
        return f"{self.name}: {self.dtype}{list(self.shape)}"


def list_arrays(path: Path, *, skip: frozenset[str] = frozenset()) -> dict[str, NpzArray]:
    """Give the arrays of an ``.npz`` file by name, from their headers alone.

    Args:
        path: The file.
        skip: Names that are not looked at.

    Raises:
        DataError: Not an ``.npz``, damaged, or an array lies about its size.
    """
    with _opened(path) as archive:
        members = archive.infolist()
        if len(members) > _MAX_MEMBERS:
            raise DataError(
                f"cannot read data from {path}: it has {len(members)} members "
                f"(at most {_MAX_MEMBERS})",
                hint="put samples into one array per input, along the first axis",
            )
        arrays: dict[str, NpzArray] = {}
        for info in members:
            name = info.filename.removesuffix(".npy")
            if name == info.filename or name in skip:
                continue
            if name in arrays:
                raise DataError(f"cannot read data from {path}: it has two arrays {name!r}")
            arrays[name] = _header(archive, path, info)
    if not arrays and not skip:
        raise DataError(
            f"cannot read data from {path}: there is no array in it",
            hint="write it with np.savez_compressed(path, input_name=array)",
        )
    return arrays


def read_array(path: Path, array: NpzArray, *, max_bytes: int) -> np.ndarray:
    """Read one array whole.

    Raises:
        DataError: It is larger than ``max_bytes``, or the file is damaged.
    """
    import numpy as np

    refuse_objects(array.name, array.dtype, str(path))
    if array.nbytes > max_bytes:
        raise DataError(
            f"cannot read {array.name!r} from {path}: it has {array.nbytes} bytes "
            f"(at most {max_bytes})"
        )
    with _opened(path) as archive, archive.open(array.member) as stream:
        _skip_header(stream)
        data = _read_exactly(stream, array.nbytes, path, array)
    flat = np.frombuffer(data, dtype=array.dtype)
    return flat.reshape(array.shape, order="F" if array.fortran else "C")


def read_rows(
    path: Path,
    arrays: Sequence[NpzArray],
    rows: Sequence[int],
    *,
    groups: int,
    together: int = 1,
) -> Iterator[list[np.ndarray]]:
    """Give ``groups`` times the next ``rows[i]`` rows of the i-th array.

    Rows are decompressed when they are asked for; who stops early does not pay for the rest.
    ``together`` groups are given at once, the last time as many as are left.

    Raises:
        DataError: The file is damaged or ends early.
    """
    import numpy as np

    with ExitStack() as stack:
        archive = stack.enter_context(_opened(path))
        whole: dict[int, np.ndarray] = {}
        streams: list[IO[bytes] | None] = []
        for index, array in enumerate(arrays):
            refuse_objects(array.name, array.dtype, str(path))
            if array.fortran:
                whole[index] = read_array(path, array, max_bytes=_MAX_HELD_BYTES)
                streams.append(None)
                continue
            stream = stack.enter_context(archive.open(array.member))
            _skip_header(stream)
            streams.append(stream)
        for group in range(0, groups, together):
            taken = []
            number = min(together, groups - group)
            for index, (array, each) in enumerate(zip(arrays, rows, strict=True)):
                source = streams[index]
                count = number * each
                if source is None:
                    taken.append(whole[index][group * each : group * each + count])
                    continue
                nbytes = count * (array.nbytes // array.shape[0])
                data = _read_exactly(source, nbytes, path, array)
                taken.append(
                    np.frombuffer(data, dtype=array.dtype).reshape(count, *array.shape[1:])
                )
            yield taken


def refuse_objects(name: str, dtype: np.dtype[Any], where: str) -> None:
    """Refuse an array of Python objects.

    Raises:
        DataError: It is one.
    """
    if dtype.hasobject:
        raise DataError(
            f"cannot read {name!r} from {where}: it holds Python objects (expected numbers)",
            hint="convert it with np.stack or .astype before saving; to load objects runs code",
            array=name,
        )


@contextmanager
def _opened(path: Path) -> Iterator[zipfile.ZipFile]:
    """Open the archive; what the archive reader throws becomes a DataError here."""
    try:
        with zipfile.ZipFile(path) as archive:
            yield archive
    except _DAMAGED as exc:
        raise DataError(
            f"cannot read data from {path}: {_reason(path, exc)}",
            hint="write it with np.savez_compressed(path, input_name=array)",
        ) from exc
    except OSError as exc:
        raise DataError(f"cannot read data from {path}: {exc.strerror or exc}") from exc
    except RuntimeError as exc:  # how zipfile says that a member is encrypted
        raise DataError(f"cannot read data from {path}: {exc}") from exc


def _reason(path: Path, exc: Exception) -> str:
    try:
        with path.open("rb") as file:
            start = file.read(6)
    except OSError:
        start = b""
    if not start:
        return "the file is empty"
    if start == b"\x93NUMPY":
        return "it is a single array (.npy), not an .npz"
    if not start.startswith(b"PK"):
        return f"it is not an .npz: it begins with {start!r}"
    return f"the archive is damaged ({exc})"


def _header(archive: zipfile.ZipFile, path: Path, info: zipfile.ZipInfo) -> NpzArray:
    name = info.filename.removesuffix(".npy")
    with archive.open(info) as stream:
        try:
            shape, fortran, dtype = _parse_header(stream)
        except _BAD_HEADER as exc:
            raise DataError(
                f"cannot read {name!r} from {path}: its header is damaged "
                f"({str(exc).splitlines()[0][:100] if str(exc) else type(exc).__name__})"
            ) from exc
        start = stream.tell()
    nbytes = 0 if dtype.hasobject else dtype.itemsize
    for extent in shape:
        nbytes *= extent
    if start + nbytes != info.file_size and not dtype.hasobject:
        raise DataError(
            f"cannot read {name!r} from {path}: {dtype}{list(shape)} needs {nbytes} bytes and "
            f"the file has {info.file_size - start}",
            hint="write the file again",
            array=name,
        )
    return NpzArray(
        name=name,
        member=info.filename,
        dtype=dtype,
        shape=shape,
        fortran=fortran,
        nbytes=nbytes,
    )


def _parse_header(stream: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Read one array's header; numpy parses it as a literal, never as code."""
    import numpy as np

    version = np.lib.format.read_magic(stream)
    readers = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }
    if version not in readers:
        raise ValueError(f"format version {version[0]}.{version[1]}")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about headers that Python 2 wrote
        shape, fortran, dtype = readers[version](stream, max_header_size=_MAX_HEADER_BYTES)
    if len(shape) > _MAX_RANK or any(
        type(extent) is not int or not 0 <= extent < 1 << 48 for extent in shape
    ):
        raise ValueError(f"shape {str(shape)[:60]}")
    return shape, bool(fortran) and len(shape) > 1, dtype


def _skip_header(stream: IO[bytes]) -> None:
    try:
        _parse_header(stream)
    except _BAD_HEADER as exc:
        raise zipfile.BadZipFile("it changed while it was read") from exc


def _read_exactly(stream: IO[bytes], nbytes: int, path: Path, array: NpzArray) -> bytes:
    data = bytes(stream.read(nbytes))
    if len(data) != nbytes:
        raise DataError(f"cannot read {array.name!r} from {path}: the file ends early")
    return data
