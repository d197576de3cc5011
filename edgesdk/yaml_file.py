"""Safe reading of one YAML file that a stranger may have written.

Only plain data comes out: no anchors, aliases or tags, no key twice, a bounded size, depth and
number of values. Scalars mean what they look like: ``true`` and ``false`` are the only
booleans, dates stay text, and ``3.10`` without quotes is a number that the schema refuses.

Profiles, recipes, inventories and settings all come through here: the only module that imports
PyYAML.
"""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from edgesdk.errors import InputError

if TYPE_CHECKING:
    import yaml

__all__ = ["MAX_YAML_BYTES", "read_yaml"]

#: Far above any file a person writes, far below anything that takes noticeable time or memory.
MAX_YAML_BYTES = 256 << 10
_MAX_DEPTH = 16
_MAX_NODES = 20_000

_INT = re.compile(r"[-+]?(?:0|[1-9][0-9_]{0,30})\Z")
_FLOAT = re.compile(r"[-+]?[0-9]{1,30}\.[0-9]{0,30}(?:[eE][-+]?[0-9]{1,3})?\Z")
_BOOL = re.compile(r"(?:true|false)\Z")
_NULL = re.compile(r"(?:null|~|)\Z")
_TAG = "tag:yaml.org,2002:"


class _BadFile(Exception):
    """What was seen, and a hint of its own where there is one."""

    def __init__(self, seen: str, *, hint: str = "") -> None:
        super().__init__(seen)
        self.hint = hint


def _read_bytes(path: Path) -> bytes:
    try:
        # a pipe or a device must not be able to keep us waiting
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise _BadFile("it is not a regular file")
            data = file.read(MAX_YAML_BYTES + 1)
    except (OSError, ValueError) as exc:
        reason = exc.strerror if isinstance(exc, OSError) and exc.strerror else str(exc)
        raise _BadFile(reason.lower()) from exc
    if len(data) > MAX_YAML_BYTES:
        raise _BadFile(f"it is larger than {MAX_YAML_BYTES} bytes")
    return data


def _decode(data: bytes) -> str:
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as exc:
        raise _BadFile(f"byte {exc.start} is not UTF-8", hint="save it as UTF-8") from exc
    for number, line in enumerate(text.splitlines(), start=1):
        if "\t" in line:
            seen = f"line {number} has a tab (expected spaces)"
            raise _BadFile(seen, hint="indent with two spaces")
    return text


def _loader_class() -> type[yaml.SafeLoader]:
    """Build a loader of plain data; libyaml's where there is one, as it is ten times faster."""
    import yaml

    base: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

    class PlainLoader(base):  # type: ignore[misc]
        """Knows strings, whole numbers, decimal fractions, booleans, null, lists, mappings."""

        yaml_implicit_resolvers: ClassVar[dict[str, list[tuple[str, re.Pattern[str]]]]] = {}

        def construct_mapping(self, node: Any, *, deep: bool = False) -> dict[str, Any]:
            keys: dict[str, int] = {}
            for key_node, _ in node.value:
                line = key_node.start_mark.line + 1
                key = self.construct_object(key_node, deep=True)
                if not isinstance(key, str):
                    raise yaml.YAMLError(f"line {line} has the key {key!r} (expected text)")
                if key in keys:
                    raise yaml.YAMLError(
                        f"line {line} repeats the key {key!r} of line {keys[key]}"
                    )
                keys[key] = line
            mapping: dict[str, Any] = super().construct_mapping(node, deep=deep)
            return mapping

    for kind, pattern, first in (
        ("null", _NULL, ["n", "~", ""]),
        ("bool", _BOOL, ["t", "f"]),
        ("int", _INT, list("-+0123456789")),
        ("float", _FLOAT, list("-+0123456789")),
    ):
        PlainLoader.add_implicit_resolver(_TAG + kind, pattern, first)
    return PlainLoader


def _check_shape(text: str, loader: type[yaml.SafeLoader]) -> None:
    """Walk the events, which costs no more than the text, before anything is built."""
    import yaml

    depth = nodes = documents = 0
    for event in yaml.parse(text, Loader=loader):
        line = 1 if event.start_mark is None else event.start_mark.line + 1
        tag = getattr(event, "tag", None)
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None) is not None:
            raise yaml.YAMLError(f"line {line} has an anchor or alias (expected plain values)")
        if tag is not None:
            raise yaml.YAMLError(f"line {line} has the tag {tag!r} (expected none)")
        if isinstance(event, yaml.DocumentStartEvent):
            documents += 1
        elif isinstance(event, yaml.CollectionStartEvent):
            depth += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        nodes += isinstance(event, yaml.NodeEvent)
        if depth > _MAX_DEPTH:
            raise yaml.YAMLError(f"line {line} is nested more than {_MAX_DEPTH} levels deep")
        if nodes > _MAX_NODES:
            raise yaml.YAMLError(f"it has more than {_MAX_NODES} values")
        if documents > 1:
            raise yaml.YAMLError(f"line {line} begins a second document (expected one)")


def _reason(exc: Exception) -> str:
    """Say in one line what PyYAML did not like, and where."""
    mark = getattr(exc, "problem_mark", None)
    problem = getattr(exc, "problem", None)
    if mark is not None and problem:
        return f"line {mark.line + 1} is not YAML: {problem}"
    return " ".join(str(exc).split())[:300]


def read_yaml(
    path: Path,
    *,
    what: str,
    error: type[InputError],
    hint: str = "",
    expected: str = "a mapping",
) -> dict[str, Any]:
    """Read a file that holds one YAML mapping of plain values; an empty file holds none.

    Args:
        path: The file.
        what: What it is, for messages: ``"recipe"``.
        error: What is raised.
        hint: What to try where the fault does not say so itself.
        expected: What the mapping should hold, for messages.

    Raises:
        InputError: As ``error``. It cannot be read, is no such YAML, or is larger, deeper or
            longer than such a file has reason to be. The text names the line if one is known.
    """
    try:
        content = _load(_decode(_read_bytes(path)))
        if content is None:
            content = {}
        if not isinstance(content, dict):
            raise _BadFile(f"it holds a {type(content).__name__} (expected {expected})")
    except _BadFile as exc:
        raise error(
            f"cannot read {what} {path}: {exc}", hint=exc.hint or hint, path=str(path)
        ) from exc.__cause__
    return content


def _load(text: str) -> object:
    import yaml

    loader = _loader_class()
    try:
        _check_shape(text, loader)
        content: object = yaml.load(text, Loader=loader)  # noqa: S506 -- a SafeLoader, made narrower
    except (yaml.YAMLError, ValueError, RecursionError) as exc:
        raise _BadFile(_reason(exc)) from exc
    return content
