"""``ssh://`` through the OpenSSH client: its processes encrypt, this one only feeds a pipe."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from edgesdk.errors import ChannelError, EdgeError, LinkError
from edgesdk.transport.base import AgentImage
from edgesdk.transport.bootstrap import Placed, bootstrap_command, run_bootstrap
from edgesdk.transport.child_channel import ChildChannel
from edgesdk.transport.openssh_log import login_error, read_login
from edgesdk.transport.openssh_way import (
    UnclearError,
    Way,
    client_command,
    find_way,
    hop_log,
)
from edgesdk.transport.ssh_rules import (
    SSH_TRAITS,
    channel_name,
    lost,
    timed_out,
    without_strict_kex,
)
from edgesdk.transport.url import DeviceUrl

__all__ = ["OpensshChannel", "open_openssh"]

_MAX_OUTPUT_BYTES = 1 << 20
_LOST = 255  # what the client ends with when it, and not the remote command, has failed


class OpensshChannel(ChildChannel):
    """The pipes of a client; use `open_openssh` to get one with the agent behind it."""

    def __init__(
        self,
        way: Way,
        command: str,
        *,
        name: str,
        timeout_s: float,
        reach_again: Callable[[float], OpensshChannel] | None = None,
    ) -> None:
        self._way = way
        self._reach_again = reach_again
        self._folder = Path(tempfile.mkdtemp(prefix="edgesdk-ssh-"))
        self._connect_s = timeout_s
        self.placed: Placed | None = None
        try:
            super().__init__(
                [*client_command(way, self._folder, timeout_s=max(1.0, timeout_s)), command],
                name=name,
                traits=SSH_TRAITS,
                # a configuration may send variables, and ours may hold a password
                env={k: v for k, v in os.environ.items() if not k.startswith("EDGESDK_")},
            )
        except OSError as exc:
            shutil.rmtree(self._folder, ignore_errors=True)
            problem = ChannelError(f"cannot run {way.program}: {exc.strerror}")
            raise UnclearError(problem) from exc

    @property
    def exit_status(self) -> int | None:
        """What the remote command ended with, if it has ended."""
        status = self._child.poll()
        return None if status is None or status < 0 or status == _LOST else status

    def login_failure(self) -> tuple[LinkError, bool] | None:
        """Say why there is no login, and whether that is sure; None if there is one."""
        failed = None
        for number, hop in enumerate(self._way.hops):
            login = read_login(hop_log(self._folder, number))
            if login.logged_in and login.strict_kex is False:
                note = without_strict_kex(hop.name)
                self.notes += () if note in self.notes else (note,)
            if not login.logged_in and failed is None:
                failed = login_error(login, hop, stderr=self.stderr_tail)
        return failed

    def _why_gone(self, doing: str, status: int | None, tail: str) -> EdgeError:
        is_lost = status is None or status < 0 or status == _LOST
        if is_lost:
            words = read_login(hop_log(self._folder, len(self._way.legs) - 1)).words
            tail = tail or (words[-1] if words else "")
        return lost(doing, self.name, None if is_lost else status, tail)

    def run(self, command: str, data: bytes, *, timeout_s: float) -> bytes:
        """Run one more command on the host; gives its output, of which 1 MiB counts.

        Raises:
            ChannelError: The host cannot be reached again, or the command never ends.
        """
        deadline = time.monotonic() + timeout_s
        extra = OpensshChannel(self._way, command, name=self.name, timeout_s=timeout_s)
        with contextlib.closing(extra):
            extra.write(data, timeout_s=timeout_s)
            extra.end_input()
            output = b""
            try:
                while len(output) < _MAX_OUTPUT_BYTES:
                    output += extra.read(timeout_s=max(0.1, deadline - time.monotonic()))
            except ChannelError:
                failure = extra.login_failure()
                if failure is not None:
                    raise failure[0] from None
                if extra.exit_status is None:
                    raise
        return output

    def open_lane(self, *, timeout_s: float) -> OpensshChannel:
        """Connect once more, as a lane; see `edgesdk.transport.base.ManyLanes`."""
        if self._reach_again is None or self._is_closing:
            raise ChannelError(f"cannot open a lane to {self.name}: it has no agent")
        return self._reach_again(timeout_s)

    def close(self) -> None:
        """End the agent's input and the client."""
        try:
            super().close()
        finally:
            shutil.rmtree(self._folder, ignore_errors=True)


def open_openssh(
    url: DeviceUrl,
    *,
    agent: AgentImage,
    program: str,
    timeout_s: float = 30.0,
    start: bool = True,
    known_hosts: Path | None = None,
) -> OpensshChannel:
    """Log in without asking anybody, put the agent there unless it is, and start it.

    Args:
        url: An ``ssh://`` URL.
        agent: What to start.
        program: The OpenSSH client, see `find_client`.
        timeout_s: How long all that may take.
        start: False leaves it at putting the agent there; the channel is then at its end.
        known_hosts: The only file that knows the host's key, for a host of our own making.

    Raises:
        HostKeyError: The host's key, or a jump host's, is unknown or changed.
        AuthError: What the client has lets nobody in.
        BootstrapError: Logged in, but the agent cannot be started.
        UnclearError: The client failed and the reason is not understood.
        ChannelError: The host cannot be reached.
    """
    deadline = time.monotonic() + timeout_s
    way = find_way(url, program, known_hosts)

    def reach_again(timeout_s: float) -> OpensshChannel:
        return _start(way, url, agent, command=["lane"], deadline=time.monotonic() + timeout_s)

    return _start(
        way,
        url,
        agent,
        command=["stdio"] if start else None,
        deadline=deadline,
        reach_again=reach_again if start else None,
    )


def _start(
    way: Way,
    url: DeviceUrl,
    agent: AgentImage,
    *,
    command: list[str] | None,
    deadline: float,
    reach_again: Callable[[float], OpensshChannel] | None = None,
) -> OpensshChannel:
    """Start the agent at the end of a way; nothing stays open when that fails."""
    channel = OpensshChannel(
        way,
        bootstrap_command(url.query.get("python", "python3")),
        name=channel_name(url),
        timeout_s=max(1.0, deadline - time.monotonic()),
        reach_again=reach_again,
    )
    try:
        try:
            channel.placed = run_bootstrap(
                channel, agent, state=url.query.get("state"), command=command, deadline=deadline
            )
        except LinkError as exc:
            failure = channel.login_failure()
            if failure is None:
                raise
            error, is_sure = failure
            if time.monotonic() >= deadline:
                raise timed_out("reach", str(error.facts.get("device", channel.name))) from exc
            if is_sure:
                raise error from exc
            raise UnclearError(error) from exc
        channel.login_failure()  # what a person should know of it
    except BaseException:
        channel.close()
        raise
    return channel
