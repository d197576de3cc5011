"""What the device runs while the agent comes to it through a shell on its console.

Two programs. The loader is typed into the shell, so it is short; it turns echo and the meaning
of control characters off and takes numbered, checked pieces. The first of them are the script,
which takes the rest. All that varies is in a header, also sent as pieces. A loader that hears
nothing for two minutes, or is woken as a login is, ends, and with it the session: so the next
one who comes finds a login prompt.
"""

from __future__ import annotations

import base64
import json
import shlex
import zlib

__all__ = [
    "PIECE_BYTES",
    "console_header",
    "loader_lines",
    "piece_line",
    "script_pieces",
    "split_pieces",
]

#: Bytes in a piece: its line has under 700 characters, and a tty takes lines of 4095.
PIECE_BYTES = 480
_LINE_CHARS = 200

# Python 3.7 at least, which was asked before. No single quotes: it stands between two of them.
_LOADER = r"""
import sys, os, json, zlib, base64, select, termios
T, K, H = "@TOKEN@", @SCRIPT@, @HEADER@
a = termios.tcgetattr(0)
a[0] = a[3] = 0
a[6][termios.VMIN], a[6][termios.VTIME] = 1, 0
termios.tcsetattr(0, termios.TCSANOW, a)
def say(*w):
    os.write(1, ("\nEDGESDK %s %s\n" % (T, json.dumps(w))).encode())
B, M = b"", None
def tell(*w):
    global M
    M = w
    say(*w)
def piece(n):
    global B, M
    while 1:
        while b"\n" not in B:
            if not select.select([0], [], [], 120)[0]: sys.exit(75)
            c = os.read(0, 4096)
            B = B[-9999:] + c
            if not c or b"\x15\r" in B: sys.exit(75)
        w, B = B.split(b"\n", 1)
        w = w.split()
        if len(w) != 3 or b"%08x" % zlib.crc32(w[0] + w[2]) != w[1]:
            say("BAD", n)
        elif int(w[0]) != n:
            say("GOT", n)
        else:
            M = None
            say("GOT", n + 1)
            return base64.b64decode(w[2])
        if M: say(*M)
def take(n, count):
    return b"".join(piece(i) for i in range(n, n + count))
tell("LOADER")
exec(zlib.decompress(take(0, K)))
"""

_SCRIPT = r"""
import hashlib, time
def fail(stage, number, text):
    for _ in range(3):  # the kernel may print into one of them
        say("FAIL", stage, number, text)
        time.sleep(0.2)
    sys.exit(73)
head = json.loads(take(K, H).decode("utf-8"))
stage, part, start = "modules", None, None
def put(path, data, mode=0o600):
    tmp = path + ".partial"
    fd = os.open(tmp, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, mode)
    with os.fdopen(fd, "wb") as f:
        f.write(data)
        f.flush()
        os.fsync(f.fileno())
    os.rename(tmp, path)
    fd = os.open(os.path.dirname(path), os.O_RDONLY)
    os.fsync(fd)
    os.close(fd)
def run(*words):
    import subprocess
    done = subprocess.run(words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, timeout=60)
    if done.returncode:
        raise OSError(0, " ".join(words) + ": " + done.stdout.decode("utf-8", "replace")[-300:])
try:
    missing = []
    for name in head["modules"]:
        try:
            __import__(name)
        except ImportError:
            missing.append(name)
    if missing:
        fail(stage, 0, "its Python lacks " + ", ".join(missing))
    stage = "folder"
    base = os.environ.get("XDG_STATE_HOME") or "~/.local/state"
    state = os.path.abspath(os.path.expanduser(head["state"] or base + "/edgesdk/agent"))
    folder = os.path.join(state, "bin")
    os.makedirs(state, 0o700, exist_ok=True)
    if not os.listdir(state): os.chmod(state, 0o700)
    os.makedirs(folder, 0o700, exist_ok=True)
    for p in (state, folder):
        s = os.lstat(p)
        if s.st_uid != os.geteuid() or not 0o40000 <= s.st_mode <= 0o47777 or s.st_mode & 0o022:
            fail(stage, 0, "%s is a link, or others may write there" % p)
    path = os.path.join(folder, "agent-" + head["sha256"][:16] + ".pyz")
    have = False
    if os.path.isfile(path) and os.path.getsize(path) == head["size"]:
        with open(path, "rb") as f:
            have = hashlib.sha256(f.read()).hexdigest() == head["sha256"]
    n = K + H
    if have:
        tell("HAVE", head["packed"], 0)
        piece(n)
        n += 1
    else:
        stage = "receive"
        part = os.path.join(folder, ".console-" + head["sha256"][:16])
        fd = os.open(part, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_APPEND, 0o600)
        size = os.fstat(fd).st_size
        size = size - size % head["piece"] if size <= head["packed"] else 0
        os.ftruncate(fd, size)
        data = os.pread(fd, size, 0)
        tell("HAVE", size, zlib.crc32(data))
        keep = int(piece(n))
        n += 1
        if keep != size:
            os.ftruncate(fd, keep)
            data = data[:keep]
        while len(data) < head["packed"]:
            p = piece(n)
            n += 1
            if not p or len(data) + len(p) > head["packed"]:
                raise ValueError("a piece has a wrong size")
            os.write(fd, p)
            data += p
        os.close(fd)
        d = zlib.decompressobj()
        whole = d.decompress(data, head["size"] + 1)
        if len(whole) != head["size"] or hashlib.sha256(whole).hexdigest() != head["sha256"]:
            os.unlink(part)
            fail(stage, 0, "the bytes do not hash to their name")
        stage = "write"
        put(path, whole)
        os.unlink(part)
    tty, notes = os.ttyname(0), []
    if head["unit"]:
        stage = "service"
        name = tty[len("/dev/"):].replace("-", "\\x2d").replace("/", "-")  # as systemd-escape
        service = "edge-agent-console@%s.service" % name
        if os.geteuid() != 0:
            fail(stage, 0, "only root can install it, and this is user %d" % os.geteuid())
        if not os.path.isdir("/run/systemd/system"):
            fail(stage, 0, "no systemd runs there")
        stable = os.path.join(state, "edge-agent.pyz")
        with open(path, "rb") as f:
            put(stable, f.read())
        def quoted(word):
            for a, b in (("\\", "\\\\"), ("\"", "\\\""), ("%", "%%"), ("$", "$$")):
                word = word.replace(a, b)
            return "\"" + word + "\""
        text = head["unit"]
        for key, word in (("PYTHON", sys.executable), ("AGENT", stable), ("STATE", state)):
            text = text.replace("@%s@" % key, quoted(word))
        put("/etc/systemd/system/edge-agent-console@.service", text.encode(), 0o644)
        run("systemctl", "daemon-reload")
        run("systemctl", "enable", service)
        start = ["systemctl", "restart", "--no-block", service]
    else:
        start = [sys.executable, "-I", "-S", path, "run", "--tty", tty, "--baud",
                 str(head["baud"]), "--state", state, "--python", sys.executable]
        if head["rtscts"]: start.append("--rtscts")
        if os.geteuid() == 0 and os.access("/bin/login", os.X_OK): start.append("--console")
    stage = "run"
    tell("RUN", path, state, sys.executable, tty, os.geteuid())
    piece(n)
    if head["unit"]:
        run(*start)
    else:
        os.execv(start[0], start)
except (OSError, ValueError, zlib.error) as e:
    where = getattr(e, "filename", None)
    why = str(getattr(e, "strerror", "") or e) + (": %s" % where if where else "")
    fail(stage, getattr(e, "errno", 0) or 0, why)
"""
_PACKED = zlib.compress(_SCRIPT.encode("ascii"), 9)


def split_pieces(data: bytes) -> list[bytes]:
    """Cut ``data`` into pieces, all of the same size but the last."""
    return [data[start : start + PIECE_BYTES] for start in range(0, len(data), PIECE_BYTES)]


def piece_line(number: int, data: bytes) -> bytes:
    """Give the line that carries a piece: its number, a checksum over both, the bytes."""
    text = base64.b64encode(data)
    head = str(number).encode("ascii")
    return b"%s %08x %s\n" % (head, zlib.crc32(head + text), text)


def console_header(record: dict[str, object]) -> bytes:
    """Give the header that the script reads."""
    return json.dumps(record | {"piece": PIECE_BYTES}).encode("ascii")


def script_pieces() -> list[bytes]:
    """Give the script, which goes first."""
    return split_pieces(_PACKED)


def loader_lines(python: str, *, token: str, header_pieces: int) -> list[bytes]:
    """Give the lines to type into a POSIX shell so that it becomes the loader."""
    code = _LOADER.replace("@TOKEN@", token).replace("@SCRIPT@", str(len(script_pieces())))
    code = code.replace("@HEADER@", str(header_pieces))
    assert "'" not in code
    assert all(len(line) < _LINE_CHARS for line in code.splitlines())
    first, *rest = code.strip("\n").splitlines()
    lines = [f"exec {shlex.quote(python)} -E -s -S -u -c '{first}", *rest]
    lines[-1] += "'"
    return [line.encode("ascii") for line in lines]
