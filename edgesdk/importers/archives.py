"""What zip archives do to who reads them, for importers and exporters alike."""

from __future__ import annotations

import lzma
import struct
import zipfile
import zlib

__all__ = ["ZIP_ERRORS"]

#: All that `zipfile` raises over an archive that is damaged, encrypted, or made to do harm.
ZIP_ERRORS: tuple[type[Exception], ...] = (
    EOFError,  # data that ends too early
    LookupError,  # a member that is not there
    NotImplementedError,  # a compression that this Python does not have
    OSError,
    OverflowError,
    RuntimeError,  # an encrypted member
    ValueError,  # names and offsets that make no sense
    lzma.LZMAError,
    struct.error,
    zipfile.BadZipFile,
    zlib.error,
)
