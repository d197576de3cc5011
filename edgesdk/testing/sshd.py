"""A real OpenSSH server on a loopback port, with its own keys, for this user."""

from __future__ import annotations

import getpass
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from edgesdk.testing.slow_network import SlowNetwork
from edgesdk.transport.processes import die_with_parent

__all__ = ["LocalSshd"]

_SSHD = "/usr/sbin/sshd"


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    assert isinstance(port, int)
    return port


class LocalSshd:
    """Starts ``sshd -D``; leaving the ``with`` block stops it.

    Attributes:
        host: The address where it listens: 127.0.0.1, or the far end of ``network``.
        port: The port there.
        user: Who can log in.
        key: A private key that is let in.
        known_hosts: A file with the server's host key; its line is in `host_line`.
        log: What the server says.
    """

    def __init__(
        self,
        folder: Path,
        *,
        options: Sequence[str] = (),
        greeting: str | None = None,
        network: SlowNetwork | None = None,
    ) -> None:
        self.folder = folder
        self.host = network.far_address if network else "127.0.0.1"
        self._network = network
        self.port = _free_port()
        self.user = getpass.getuser()
        self.key = folder / "id_ed25519"
        self.host_key = folder / "host_ed25519"
        self.known_hosts = folder / "known_hosts"
        self.log = folder / "sshd.log"
        self._options = list(options)
        self._greeting = greeting
        self._server: subprocess.Popen[bytes] | None = None
        folder.mkdir(parents=True, exist_ok=True)
        for path in (self.key, self.host_key):
            self._make_key(path)
        (folder / "authorized_keys").write_text(self.key.with_suffix(".pub").read_text())
        self.known_hosts.write_text(self.host_line())

    @staticmethod
    def why_not() -> str | None:
        """Say why no server can be started here, or None."""
        if not os.access(_SSHD, os.X_OK) or shutil.which("ssh-keygen") is None:
            return f"there is no {_SSHD}: install openssh-server"
        return None

    @staticmethod
    def _make_key(path: Path) -> None:
        path.unlink(missing_ok=True)
        command = [
            "ssh-keygen",
            "-q",
            "-t",
            "ed25519",
            "-N",
            "",
            "-C",
            "edgesdk",
            "-f",
            str(path),
        ]
        subprocess.run(command, check=True, stdin=subprocess.DEVNULL, capture_output=True)

    def host_line(self) -> str:
        """The line a known hosts file has for this server."""
        kind, blob = self.host_key.with_suffix(".pub").read_text().split()[:2]
        return f"[{self.host}]:{self.port} {kind} {blob}\n"

    def change_host_key(self) -> None:
        """Give the server another host key, from its next start on."""
        self._make_key(self.host_key)

    def _config(self) -> str:
        lines = [
            f"ListenAddress {self.host}",
            f"Port {self.port}",
            f"HostKey {self.host_key}",
            f"AuthorizedKeysFile {self.folder}/authorized_keys",
            f"PidFile {self.folder}/sshd.pid",
            "PermitRootLogin yes",
            "PasswordAuthentication yes",
            "UsePAM no",
            "StrictModes no",
            "PrintMotd no",
            "LogLevel INFO",
            *self._options,
        ]
        return "\n".join(lines) + "\n"

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Start the server and wait until it listens."""
        if os.geteuid() == 0:  # its privilege separation wants this folder to be there
            Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
        config = self.folder / "sshd_config"
        config.write_text(self._config())
        command = [_SSHD, "-D", "-e", "-f", str(config)]
        with self.log.open("ab") as log:
            self._server = subprocess.Popen(
                self._network.far(command) if self._network else command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                preexec_fn=die_with_parent,  # noqa: PLW1509 - one call that takes no lock
            )
        deadline = time.monotonic() + 10.0
        while True:
            if self._listens():
                return
            if self._server.poll() is not None or time.monotonic() > deadline:
                said = self.log.read_text(errors="replace")[-500:]
                raise RuntimeError(f"sshd does not listen: {said}")
            time.sleep(0.02)

    def _listens(self) -> bool:
        if self._network is not None:  # out of our reach
            return "Server listening on" in self.log.read_text(errors="replace")
        try:
            socket.create_connection((self.host, self.port), timeout=1.0).close()
        except OSError:
            return False
        return True

    def stop(self) -> None:
        """Stop the server; connections that are open live on until they are closed."""
        if self._server is not None:
            self._server.terminate()
            self._server.wait(timeout=5.0)
            self._server = None

    def url(self, *, host: str | None = None, **options: str | Path) -> str:
        """Give the device URL, with options such as ``state``; the right key is in it."""
        query = "&".join(f"{k}={v}" for k, v in {"key": self.key, **options}.items())
        return f"ssh://{self.user}@{host or self.host}:{self.port}?{query}"
