"""People on the agent's line: a login on a terminal of its own, and hosts that go first."""

from __future__ import annotations

import contextlib
import os
import re
import select
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.agent.agent_driver import (
    HELLO,
    AgentProcess,
    EchoBundle,
    Start,
    current,
    deploy,
    wait_until_gone,
)
from tests.agent.line_host import LineHost
from tests.agent.test_daemon import Line, wait_until_ready
from tests.console_device import ALICE, PASSWORD, open_folder, sandbox, why_no_console

Modules = Callable[[str], Any]
HINT = "press Enter to log in; an edgesdk agent serves hosts on this line"
#: A shell that says nothing of itself.
SHELL = "/bin/sh -i"

real_login = pytest.mark.skipif(why_no_console() is not None, reason=str(why_no_console()))


@pytest.fixture
def line() -> Iterator[Line]:
    line = Line()
    yield line
    line.close()


@pytest.fixture
def folder() -> Iterator[Path]:
    with open_folder() as made:
        yield made


class Person:
    """Somebody with a terminal program at the other end of the line."""

    def __init__(self, line: Line) -> None:
        self.fd = line.ours
        self.rest = b""

    def type(self, text: str) -> None:
        os.write(self.fd, text.encode())

    def see(self, text: str, timeout_s: float = 15) -> str:
        """Give what came up to ``text``; what is behind it is for the next time."""
        wanted = text.encode()
        deadline = time.monotonic() + timeout_s
        while wanted not in self.rest:
            left_s = max(0.0, deadline - time.monotonic())
            ready, _, _ = select.select([self.fd], [], [], left_s)
            assert ready, f"no {text!r} in {self.rest[-2000:]!r}"
            self.rest += os.read(self.fd, 1 << 16)
        seen, _, self.rest = self.rest.partition(wanted)
        return (seen + wanted).decode("utf-8", "replace")

    def see_nothing(self, for_s: float) -> None:
        ready, _, _ = select.select([self.fd], [], [], for_s)
        assert not ready, os.read(self.fd, 1 << 16)
        assert self.rest.strip() == b""

    def shell_pid(self) -> int:
        self.type("echo pid=$$.''ok\r")
        found = re.search(r"pid=(\d+)\.ok", self.see(".ok"))
        assert found is not None
        return int(found[1])

    def log_in(self) -> None:
        self.see(HINT)
        self.type("\r")
        self.see("$ " if os.geteuid() else "# ")


def log_of(state: Path) -> list[str]:
    return (state / "logs" / "agent.log").read_text().splitlines()


@pytest.fixture
def person(start: Start, line: Line) -> Person:
    wait_until_ready(
        start("--tty", line.path, "--console", SHELL, command="run", greet=False, env=QUIET)
    )
    return Person(line)


QUIET = {"TERM": "dumb", "ENV": ""}


def test_login_has_a_terminal_of_its_own(person: Person) -> None:
    person.log_in()
    person.type("tty; stty size; echo term=$TERM; echo left-$((40+2))\r")
    seen = person.see("left-42")
    assert "\r\n/dev/pts/" in seen
    assert "\r\n24 80\r\n" in seen
    assert "term=vt220\r\n" in seen
    person.type("sleep 60; echo n''ever\r")
    time.sleep(0.3)
    person.type("\x03")
    person.type("echo st''ill here\r")
    assert "never" not in person.see("still here")


def test_line_is_quiet_until_somebody_types(person: Person, state: Path) -> None:
    person.see(HINT)
    person.see_nothing(0.5)
    assert "login was started" not in "\n".join(log_of(state))
    person.type("\r")
    person.see(" ")
    person.type("exit\r")
    person.see(HINT)
    assert log_of(state)[-1].endswith("console: the login has ended")


def test_host_goes_first_and_the_output_waits_whole(person: Person, line: Line) -> None:
    person.log_in()
    person.type("i=0; while [ $i -lt 6000 ]; do i=$((i+1)); echo n$i; done\r")
    person.see("n20\r\n")
    host = LineHost(line.ours)
    assert host.ask("hello", **HELLO).meta["daemon"] is True
    deploy(host, bundle := EchoBundle(os.urandom(50_000)))
    assert current(host) == bundle.id
    time.sleep(0.3)
    before = host.arq.noise_bytes
    time.sleep(0.5)
    assert host.arq.noise_bytes == before, "the login prints into the session"
    assert host.ask("ping").meta["ok"]
    host.hang_up()
    person.rest = b""  # what was under way when the session began went to the host
    numbers = [int(found) for found in re.findall(r"n(\d+)\r\n", person.see("n6000\r\n"))]
    assert numbers == list(range(numbers[0], 6001)), "some of it was lost"
    person.type("echo al''ive\r")
    person.see("alive")


def test_nothing_of_a_session_is_typed_into_the_shell(
    person: Person, line: Line, tmp_path: Path
) -> None:
    """A root shell that is open on the line must not get a byte of what hosts send."""
    person.log_in()
    person.type(f"cat > {tmp_path}/typed\r")
    time.sleep(0.3)
    for seed in (1, 2):
        host = LineHost(line.ours, seed=seed)
        host.ask("hello", **HELLO)
        deploy(host, EchoBundle(b"\nrm -rf /\n" * 500 + bytes([seed])))
        host.vanish() if seed == 1 else host.hang_up()
    time.sleep(0.7)  # what comes on the heels of a frame is taken for a broken one
    person.type("me\r")
    time.sleep(0.3)
    person.type("\x04")
    person.type("echo do''ne\r")
    person.see("done")
    assert (tmp_path / "typed").read_bytes() == b"me\n"


def test_flood_ends_with_a_key(person: Person) -> None:
    person.log_in()
    person.type("yes\r")
    person.see("y\r\n" * 500)
    person.type("\x03")
    person.type("echo st''opped\r")
    person.see("stopped", timeout_s=5)


def test_login_that_ends_at_once_is_put_off_longer_and_longer(
    start: Start, line: Line, state: Path
) -> None:
    wait_until_ready(
        start("--tty", line.path, "--console", "/bin/false", command="run", greet=False)
    )
    person = Person(line)
    person.see(HINT)
    for _ in range(30):
        person.type("\r")
        time.sleep(0.05)
    started = [entry for entry in log_of(state) if entry.endswith("a login was started")]
    assert 1 <= len(started) <= 3


def test_end_of_the_daemon_ends_the_login(start: Start, line: Line) -> None:
    daemon = start("--tty", line.path, "--console", SHELL, command="run", greet=False)
    wait_until_ready(daemon)
    person = Person(line)
    person.log_in()
    shell = person.shell_pid()
    helpers = children_of(daemon.process.pid)
    assert len(helpers) == 1
    daemon.process.send_signal(signal.SIGTERM)
    assert daemon.process.wait(10) == 0
    wait_until_gone(shell)
    wait_until_gone(helpers[0])


def test_killed_daemon_takes_the_login_with_it(start: Start, line: Line) -> None:
    daemon = start("--tty", line.path, "--console", SHELL, command="run", greet=False)
    wait_until_ready(daemon)
    person = Person(line)
    person.log_in()
    shell = person.shell_pid()
    helper = children_of(daemon.process.pid)[0]
    daemon.kill()
    wait_until_gone(shell)
    wait_until_gone(helper)


def children_of(pid: int) -> list[int]:
    text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    return [int(word) for word in text.split()]


def test_console_that_lost_its_helper_is_a_fault(start: Start, line: Line, state: Path) -> None:
    """Without it nobody can log in again: the service manager has to start all of it anew."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(f"\0edge-{os.getpid()}-console")
        manager.settimeout(20)
        env = {"NOTIFY_SOCKET": f"@edge-{os.getpid()}-console", "WATCHDOG_USEC": "600000"}
        daemon = start(
            "--tty", line.path, "--console", SHELL, command="run", greet=False, env=env
        )
        wait_until_ready(daemon)
        person = Person(line)
        person.see(HINT)
        os.kill(children_of(daemon.process.pid)[0], signal.SIGKILL)
        person.type("\r")
        while b"STATUS=stuck: thread console has ended" not in manager.recv(4096):
            pass
    assert "the process that starts logins" in "\n".join(log_of(state))


@pytest.mark.parametrize(
    ("arguments", "status", "text"),
    [
        (["--console"], 2, "--console needs the line it is for: --tty"),
        (
            ["--tty", "LINE", "--console", "/bin/no-such"],
            3,
            "failed at stage console: there is no program /bin/no-such (expected an absolute",
        ),
        (["--tty", "LINE", "--console", "login"], 3, "failed at stage console: there is no"),
        (["--tty", "LINE", "--console", ""], 3, "failed at stage console: there is no"),
        (
            ["--tty", "LINE", "--console", "'"],
            3,
            "stage console: No closing quotation",
        ),
        (["--user", "nobody-of-that-name"], 3, "failed at stage user: "),
    ],
)
def test_console_that_cannot_be_says_why(
    start: Start, line: Line, arguments: list[str], status: int, text: str
) -> None:
    words = [line.path if word == "LINE" else word for word in arguments]
    daemon = start(*words, command="run", greet=False)
    assert daemon.process.wait(20) == status
    assert text in daemon.stderr()


# -- root, and an ordinary user --------------------------------------------------------------


@pytest.mark.long
@real_login
def test_people_log_in_as_on_any_console_and_the_agent_is_nobody_special(
    agent_pyz: Path, line: Line, folder: Path
) -> None:
    pyz = folder / "agent.pyz"
    pyz.write_bytes(agent_pyz.read_bytes())
    daemon = AgentProcess(
        [
            *sandbox(folder, shell="/bin/sh"),
            *("/usr/bin/python3", "-I", "-S", str(pyz), "run"),
            *("--tty", line.path, "--console", "--user", "alice"),
        ],
        greet=False,
    )
    with contextlib.ExitStack() as stack:
        stack.enter_context(daemon)
        wait_until_ready(daemon)
        state = folder / "alice" / ".local" / "state" / "edgesdk" / "agent"
        assert state.stat().st_uid == ALICE
        agent = children_of(daemon.process.pid)[0]
        # who becomes another user is no longer told that its parent died
        stack.callback(os.kill, agent, signal.SIGKILL)
        status = Path(f"/proc/{agent}/status").read_text()
        assert re.search(rf"^Uid:(\s+{ALICE}){{4}}$", status, re.MULTILINE)
        assert re.search(rf"^Gid:(\s+{ALICE}){{4}}$", status, re.MULTILINE)
        assert re.search(r"^CapEff:\s+0+$", status, re.MULTILINE)
        assert re.search(r"^NoNewPrivs:\s+1$", status, re.MULTILINE)

        person = Person(line)
        person.see(HINT)
        person.type("\r")
        person.see("login: ")
        person.type("alice\r")
        person.see("assword: ")
        person.type("wrong\r")
        person.see("incorrect")
        person.see("login: ")
        person.type("alice\r")
        person.see("assword: ")
        person.type(f"{PASSWORD}\r")
        person.see("$ ")
        person.type("id -u; grep NoNewPrivs /proc/self/status\r")
        seen = person.see("NoNewPrivs:\t0")
        assert f"\r\n{ALICE}\r\n" in seen
        assert PASSWORD not in seen
        host = LineHost(line.ours)
        deploy(host, EchoBundle())
        assert host.ask("status").meta["worker"] is not None
        host.hang_up()
        time.sleep(0.7)  # what comes on the heels of a frame is taken for a broken one
        person.type("exit\r")
        person.see(HINT)
        time.sleep(0.1)
        person.type("\r")
        person.see("login: ")
        person.type("root\r")
        person.see("# ")
        person.type("id -u; exit\r")
        assert "\r\n0\r\n" in person.see(HINT)
    assert PASSWORD not in (state / "logs" / "agent.log").read_text()


# -- the console alone -----------------------------------------------------------------------


class FakeLogins:
    """Gives one end of a socket pair as the terminal."""

    def __init__(self) -> None:
        self.theirs: list[socket.socket] = []

    def open(self) -> int:
        ours, theirs = socket.socketpair()
        self.theirs.append(theirs)
        return ours.detach()

    def is_running(self) -> bool:
        return False

    def close(self) -> None:
        for theirs in self.theirs:
            theirs.close()


@contextlib.contextmanager
def serving(console: Any) -> Iterator[None]:
    thread = threading.Thread(target=console.serve)
    thread.start()
    try:
        yield
    finally:
        console.stop()
        thread.join(10)
        assert not thread.is_alive()


def test_line_that_went_away_ends_the_login(agent_modules: Modules) -> None:
    """Who holds the next cable must not find somebody's shell."""
    logins, said = FakeLogins(), bytearray()
    console = agent_modules("edge_agent.console").Console(
        logins, lambda data: said.extend(data) or len(data), lambda text: None
    )
    with serving(console):
        console.on_text(b"root\r")
        deadline = time.monotonic() + 10
        while not logins.theirs:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        terminal = logins.theirs[0]
        terminal.settimeout(10)
        assert terminal.recv(100) == b"root\r"
        console.hang_up()
        assert terminal.recv(100) == b"", "the login was not hung up"
    logins.close()


def test_what_nobody_reads_is_bounded(agent_modules: Modules) -> None:
    module = agent_modules("edge_agent.console")
    logins = FakeLogins()
    console = module.Console(logins, lambda data: 0, lambda text: None)
    for _ in range(1000):
        console.on_text(b"x" * 1000)
    assert len(console._typed) <= module._MAX_TYPED_BYTES
    with serving(console):  # on a line that takes nothing
        console.on_text(b"\r")
        time.sleep(0.1)
        assert len(console._output) < 2048
    logins.close()


def test_output_is_held_while_a_host_is_there(agent_modules: Modules) -> None:
    logins, said = FakeLogins(), bytearray()
    console = agent_modules("edge_agent.console").Console(
        logins, lambda data: said.extend(data[:7]) or len(data[:7]), lambda text: None
    )
    with serving(console):
        console.on_text(b"\r")
        deadline = time.monotonic() + 10
        while not logins.theirs or said.count(HINT[-40:].encode()) < 2:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        console.on_session(True)
        time.sleep(0.2)
        del said[:]
        logins.theirs[0].sendall(b"output that waits")
        time.sleep(0.2)
        assert said == b""
        console.on_session(False)
        while not said.endswith(b"output that waits"):
            assert time.monotonic() < deadline, said
            time.sleep(0.01)
    logins.close()


def test_helper_starts_nothing_but_its_command(agent_modules: Modules) -> None:
    login = agent_modules("edge_agent.login")
    logins = login.Logins.start(["/bin/sh", "-c", "echo started; sleep 60"])
    try:
        logins._link.sendall(b"/bin/sh")
        with pytest.raises(login.HelperGone):
            logins.open()
    finally:
        logins.close()
    assert not Path(f"/proc/{logins.pid}").exists()


def test_helper_starts_no_more_than_a_few_and_collects_them(agent_modules: Modules) -> None:
    login = agent_modules("edge_agent.login")
    logins = login.Logins.start(["/bin/sh", "-c", "trap '' HUP; exec sleep 60"])
    terminals: list[int] = []
    try:
        terminals += [logins.open() for _ in range(login._MAX_ALIVE)]
        with pytest.raises(login.LoginFailed, match=r"cannot start /bin/sh: 8 are running"):
            logins.open()
        started = children_of(logins.pid)
        assert len(started) == len(terminals) == login._MAX_ALIVE
        for pid in started:
            os.kill(pid, signal.SIGKILL)
            wait_until_gone(pid)
        terminals.append(logins.open())
        assert logins.is_running()
        newest = children_of(logins.pid)
        assert len(newest) == 1
        os.kill(newest[0], signal.SIGKILL)
        wait_until_gone(newest[0])
        assert not logins.is_running()
        assert children_of(logins.pid) == []
    finally:
        for fd in terminals:
            os.close(fd)
        logins.close()


def test_terminal_that_login_lets_go_of_for_a_moment_is_not_hung_up(
    start: Start, line: Line, tmp_path: Path
) -> None:
    """`login` hangs its terminal up and opens it again; on a busy board that takes a while."""
    program = tmp_path / "slow-login"
    program.write_text(
        "#!/bin/bash\ntty=$(tty); exec </dev/null >/dev/null 2>&1; sleep 0.5\n"
        'exec <>"$tty" >&0 2>&1; read -p "name: " name; echo "hello $name"\n'
    )
    program.chmod(0o755)
    wait_until_ready(
        start("--tty", line.path, "--console", str(program), command="run", greet=False)
    )
    person = Person(line)
    person.see(HINT)
    person.type("\r")
    person.see("name: ")
    person.type("ann\r")
    person.see("hello ann")
    person.see(HINT)


def test_rights_are_not_taken_by_an_ordinary_user(agent_pyz: Path, folder: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can start it as somebody else")
    shared = folder / "agent.pyz"
    shared.write_bytes(agent_pyz.read_bytes())
    shared.chmod(0o644)
    done = subprocess.run(
        ["/usr/bin/python3", "-I", "-S", str(shared), "run", "--user", "root"],
        user=ALICE,
        group=ALICE,
        env={"HOME": str(folder)},
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )
    assert done.returncode == 3
    assert done.stderr == (
        "edge-agent: failed at stage user: only root can start it as another user (root)\n"
    )
