"""Text and values from a device, made safe to show: no control characters, bounded.

A compromised device must not be able to drive the terminal, a log or a report through a name.
"""

from __future__ import annotations

import re
import unicodedata

__all__ = ["clean_text", "clean_value", "utf8_text"]

_MAX_TEXT_CHARS = 4000
_MAX_ITEMS = 4096
_MAX_DEPTH = 12
#: How Python holds the bytes of a file name that are no text; JSON can spell them too.
_SURROGATES = re.compile("[\ud800-\udfff]")


def _is_shown(char: str) -> bool:
    # Cc: control, Cf: direction overrides and the like, Cs: lone surrogates
    return char == "\n" or unicodedata.category(char) not in ("Cc", "Cf", "Cs", "Zl", "Zp")


def clean_text(text: object, *, limit: int = _MAX_TEXT_CHARS) -> str:
    """Give ``text`` without control characters (a line feed may stay), cut to ``limit``."""
    raw = text if isinstance(text, str) else repr(text)
    kept = raw[: limit + 1].replace("\t", " ")
    shown = "".join(char if _is_shown(char) else " " for char in kept)
    return shown if len(raw) <= limit else shown[:limit] + "..."


def utf8_text(text: str) -> str:
    """Give ``text``, a path or an argument say, with U+FFFD for what UTF-8 cannot hold."""
    return _SURROGATES.sub("\ufffd", text)


def clean_value(value: object, *, depth: int = 0) -> object:
    """Clean every text inside a JSON value, keys too; what is nested too deeply is dropped."""
    if isinstance(value, str):
        return clean_text(value)
    if value is None or isinstance(value, bool | int | float):
        return value
    if depth >= _MAX_DEPTH:
        return None
    if isinstance(value, dict):
        items = list(value.items())[:_MAX_ITEMS]
        return {clean_text(key): clean_value(item, depth=depth + 1) for key, item in items}
    if isinstance(value, list | tuple):
        return [clean_value(item, depth=depth + 1) for item in value[:_MAX_ITEMS]]
    return clean_text(value)
