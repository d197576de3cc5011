"""What a terminal on a line would show, as text that can be searched."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from typing import Protocol, TypeVar

from edgesdk.errors import ChannelTimeout

__all__ = ["Screen", "TextLine"]

Found = TypeVar("Found")

#: What of the screen is kept; a prompt is at its end.
_KEPT_CHARS = 16_384
_SHOWN_CHARS = 300
_WRITE_S = 6.0
#: This share of bytes that are no text is no console at our speed.
_GARBAGE_SHARE = 0.3
_GARBAGE_BYTES = 8
_ESCAPES = re.compile(
    r"\x1b\[[0-?]*[ -/]*[@-~]|\x1b[\]PX^_].*?(?:\x07|\x1b\\)|\x1b[()*+#%].|\x1b[0-Z\\^-~]",
    re.DOTALL,
)
#: A message of the kernel, which prints when it likes; what was before it goes on behind it.
_KERNEL = re.compile(r"\r?\n?\[ *[0-9]+\.[0-9]{6}\][^\n]*(\n|\Z)")
_HALF_ESCAPE = re.compile(r"\x1b[^\x1b]{0,80}\Z", re.DOTALL)


class TextLine(Protocol):
    """A line as a terminal sees it: bytes, no frames."""

    name: str

    def read(self, *, timeout_s: float) -> bytes:
        """As `edgesdk.transport.base.Channel.read`."""

    def write(self, data: bytes, *, timeout_s: float) -> None:
        """As `edgesdk.transport.base.Channel.write`."""


class Screen:
    """What a terminal on ``line`` would show, as plain text."""

    def __init__(self, line: TextLine) -> None:
        self.line = line
        self.heard_bytes = 0
        self._odd_bytes = 0
        self._raw = b""
        self._hidden: list[str] = []

    @property
    def text(self) -> str:
        """The text since `forget`, without escape sequences and messages of the kernel."""
        text = _KERNEL.sub("", _ESCAPES.sub("", self._raw.decode("utf-8", "replace")))
        text = _HALF_ESCAPE.sub("", text)
        return "".join(c for c in text if c in "\n\t" or c >= " ")

    @property
    def tail(self) -> str:
        """The last lines, for messages; secrets are masked."""
        text = " | ".join(line.strip() for line in self.text.splitlines() if line.strip())
        for secret in self._hidden:
            text = text.replace(secret, "********")
        return "".join(c if c.isprintable() else "?" for c in text)[-_SHOWN_CHARS:]

    @property
    def is_garbage(self) -> bool:
        """Say whether what comes is no text, as from a line of another speed."""
        return self._odd_bytes >= max(_GARBAGE_BYTES, _GARBAGE_SHARE * self.heard_bytes)

    def hide(self, secret: str) -> None:
        """Keep ``secret`` out of every message, should the device print it."""
        if secret:
            self._hidden.append(secret)

    def forget(self) -> None:
        """Begin an empty screen: what is on it was understood."""
        self._raw = b""

    def send(self, data: bytes) -> None:
        """Type ``data`` on an empty screen."""
        self.forget()
        self.line.write(data, timeout_s=_WRITE_S)

    def listen(self, timeout_s: float) -> bool:
        """Wait for what comes and say whether anything did."""
        return bool(self.take(timeout_s))

    def take(self, timeout_s: float) -> bytes:
        """Wait for what comes and give it as it came; nothing if nothing did."""
        try:
            data = self.line.read(timeout_s=max(0.001, timeout_s))
        except ChannelTimeout:
            return b""
        self.heard_bytes += len(data)
        odd = data.decode("utf-8", "replace").count("\N{REPLACEMENT CHARACTER}")
        self._odd_bytes += odd + sum(data.count(byte) for byte in (b"\0", b"\x7f", b"\x80"))
        self._raw = (self._raw + data)[-_KEPT_CHARS:]
        return data

    def settle(self, quiet_s: float, *, timeout_s: float) -> None:
        """Read until the text has been the same for ``quiet_s``."""
        now = time.monotonic()
        deadline, quiet_at, text = now + timeout_s, now + quiet_s, self.text
        while now < min(quiet_at, deadline):
            if self.listen(min(quiet_at, deadline) - now) and self.text != text:
                quiet_at, text = time.monotonic() + quiet_s, self.text
            now = time.monotonic()

    def wait_for(
        self, find: Callable[[str], Found | None], *, timeout_s: float, quiet_s: float = 0.0
    ) -> Found | None:
        """Read until ``find`` finds something on a screen that was quiet for ``quiet_s``."""
        deadline = time.monotonic() + timeout_s
        while True:
            found = find(self.text)
            left_s = deadline - time.monotonic()
            if found is not None and quiet_s:
                before = self.text
                self.settle(quiet_s, timeout_s=max(quiet_s, left_s))
                if self.text != before and left_s > 0:
                    continue
            if found is not None:
                return found
            if left_s <= 0:
                return None
            self.listen(left_s)
