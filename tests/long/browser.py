"""A headless Chromium for tests: DevTools messages over a pipe, with the standard library.

The browser reads messages from descriptor 3 and writes them to 4; a zero byte ends each.
"""

from __future__ import annotations

import base64
import json
import os
import select
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

__all__ = ["Browser", "Tab", "find_chromium"]

_NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")


def find_chromium() -> str | None:
    """Give the path of a Chromium, or None."""
    return next((path for name in _NAMES if (path := shutil.which(name))), None)


class Browser:
    """One browser process with a profile of its own; ends with the ``with`` block."""

    def __init__(self, program: str, folder: Path) -> None:
        self._last_id = 0
        self._buffer = b""
        self.events: list[dict[str, Any]] = []
        to_browser, self._out = os.pipe()
        self._in, from_browser = os.pipe()
        flags = [
            "--headless=new", "--remote-debugging-pipe", "--no-sandbox", "--disable-gpu",
            "--no-first-run", "--disable-background-networking", "--hide-scrollbars",
            "--disable-dev-shm-usage", f"--user-data-dir={folder}", "about:blank",
        ]  # fmt: skip
        # dup2 in a shell: 3 and 4 may be taken here by other descriptors
        shell = f'exec 3<&{to_browser} 4>&{from_browser}; exec "$0" "$@"'
        self._process = subprocess.Popen(
            ["bash", "-c", shell, program, *flags],
            pass_fds=(to_browser, from_browser),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(to_browser)
        os.close(from_browser)

    def __enter__(self) -> Browser:
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self.ask("Browser.close")
            self._process.wait(20)
        except (EOFError, TimeoutError, OSError, subprocess.TimeoutExpired):
            self._process.kill()
            self._process.wait()
        os.close(self._out)
        os.close(self._in)

    def ask(self, method: str, session: str | None = None, **params: Any) -> Any:
        """Send one command and give its result; events that come before it are kept."""
        self._last_id += 1
        message: dict[str, Any] = {"id": self._last_id, "method": method, "params": params}
        if session is not None:
            message["sessionId"] = session
        data = json.dumps(message).encode() + b"\0"
        while data:
            data = data[os.write(self._out, data) :]
        while True:
            reply = self.receive(60)
            if reply.get("id") == self._last_id:
                assert "error" not in reply, (method, reply["error"])
                return reply["result"]

    def receive(self, timeout_s: float) -> dict[str, Any]:
        """Wait for one message; an event is kept as well."""
        deadline = time.monotonic() + timeout_s
        while b"\0" not in self._buffer:
            ready, _, _ = select.select([self._in], [], [], deadline - time.monotonic())
            if not ready:
                raise TimeoutError(f"the browser said nothing for {timeout_s} s")
            data = os.read(self._in, 1 << 20)
            if not data:
                raise EOFError("the browser is gone")
            self._buffer += data
        line, self._buffer = self._buffer.split(b"\0", 1)
        message: dict[str, Any] = json.loads(line)
        if "method" in message:
            self.events.append(message)
        return message

    def open(self, url: str, *, width: int, height: int = 800, dark: bool = False) -> Tab:
        """Open a page in a tab of its own and wait until it is drawn."""
        target = self.ask("Target.createTarget", url="about:blank")["targetId"]
        session = self.ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        tab = Tab(self, session)
        for domain in ("Page", "Runtime", "Log", "Network", "Performance"):
            tab.ask(f"{domain}.enable")
        tab.ask(
            "Emulation.setDeviceMetricsOverride",
            width=width, height=height, deviceScaleFactor=1, mobile=width < 600,
        )  # fmt: skip
        tab.ask("Emulation.setEmulatedMedia", features=[
            {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        ])  # fmt: skip
        self.events.clear()
        started = time.monotonic()
        tab.ask("Page.navigate", url=url)
        while not any(event["method"] == "Page.loadEventFired" for event in self.events):
            self.receive(60)
        # two frames: what loaded has been laid out and painted
        tab.run("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")
        tab.opened_s = time.monotonic() - started
        return tab


class Tab:
    """One page. ``opened_s`` is how long it took from navigating to painted."""

    opened_s = 0.0

    def __init__(self, browser: Browser, session: str) -> None:
        self._browser = browser
        self._session = session

    def ask(self, method: str, **params: Any) -> Any:
        """Send a command to this page."""
        return self._browser.ask(method, self._session, **params)

    def run(self, script: str) -> Any:
        """Give the value of an expression in the page."""
        reply = self.ask(
            "Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True
        )
        assert "exceptionDetails" not in reply, reply["exceptionDetails"]
        return reply["result"].get("value")

    @property
    def complaints(self) -> list[dict[str, Any]]:
        """What the console has: errors, warnings, blocked content."""
        said = ("Log.entryAdded", "Runtime.exceptionThrown", "Runtime.consoleAPICalled")
        return [event for event in self._events() if event["method"] in said]

    @property
    def requests(self) -> list[str]:
        """Every address that was asked for, the page's own among them."""
        return [
            event["params"]["request"]["url"]
            for event in self._events()
            if event["method"] == "Network.requestWillBeSent"
        ]

    def _events(self) -> list[dict[str, Any]]:
        return [e for e in self._browser.events if e.get("sessionId") == self._session]

    def press(self, key: str) -> None:
        """Press and release a key, as somebody without a mouse does."""
        text = {"Enter": "\r"}.get(key, "")
        codes = {"Enter": 13, "Tab": 9}
        for kind in ("keyDown", "keyUp"):
            self.ask(
                "Input.dispatchKeyEvent", type=kind, key=key, code=key,
                windowsVirtualKeyCode=codes[key], text=text if kind == "keyDown" else "",
            )  # fmt: skip

    def shot(self, path: Path, *, whole: bool = True) -> None:
        """Save a picture of the page."""
        reply = self.ask("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        path.write_bytes(base64.b64decode(reply["data"]))

    def pdf(self, path: Path) -> None:
        """Save the page as it is printed."""
        reply = self.ask("Page.printToPDF", printBackground=False, preferCSSPageSize=True)
        path.write_bytes(base64.b64decode(reply["data"]))
