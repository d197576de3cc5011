"""What an agent imports before a push is through: every command over SSH waits for it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from tests.agent.agent_driver import EchoBundle, Talk, push

#: A module that is added here costs every command its compilation on the device.
NEEDED = {
    *(
        "__main__",
        "agent",
        "asking",
        "context",
        "fs",
        "gate",
        "handlers",
        "holding",
        "landing",
        "later",
    ),
    *("links", "lock", "logs", "pipes", "policy", "policy_files", "probation", "refusals"),
    "releases",
    *("serve", "serving_path", "slots", "starting", "stdio", "store", "supervisor", "vitals"),
}
WIRE = {"codes", "frames", "limits", "manifest", "ops", "statement", "tensors"}
#: Of the standard library: what imports much itself, or is for a daemon or a worker.
NOT_NEEDED = {
    *("argparse", "base64", "bz2", "calendar", "ctypes", "datetime", "hmac", "ipaddress"),
    *("platform", "pwd", "random", "secrets", "shutil", "statistics", "subprocess"),
    *("tempfile", "termios", "traceback", "tty"),
}
CHILD = """
import json, sys
sys.path.insert(0, {pyz!r})
from edge_agent.__main__ import main
status = main(["stdio", "--state", {state!r}, "--python", sys.executable])
json.dump(sorted(sys.modules), sys.stderr)
sys.exit(status)
"""


def test_a_push_imports_only_what_it_needs(agent_pyz: Path, state: Path) -> None:
    bundle = EchoBundle(b"lean")
    code = CHILD.format(pyz=str(agent_pyz), state=str(state))
    with subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", code],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        talk = Talk(process.stdout.fileno(), process.stdin.fileno())
        assert talk.ask("hello", protocol=[1, 1], session="a", who="me@here").meta["ok"]
        assert talk.ask("hold", doing="deploying").meta["ok"]
        push(talk, bundle)
        process.stdin.close()
        loaded = set(json.loads(process.stderr.read()))
        assert process.wait(20) == 0
    for package, needed in (("edge_agent.", NEEDED), ("edgesdk.wire.", WIRE)):
        found = {name.removeprefix(package) for name in loaded if name.startswith(package)}
        assert found <= needed, f"{package}: {sorted(found - needed)}"
        assert found >= needed, f"no longer imported: {sorted(needed - found)}"
    assert not loaded & NOT_NEEDED


def test_a_daemon_imports_all_of_it_at_once(agent_pyz: Path) -> None:
    """The file it runs from may be another one by the time that something is first needed."""
    code = (
        "import sys, zipfile; sys.path.insert(0, {0!r}); from edge_agent import later\n"
        "later.import_all(); import edge_agent.daemon, edge_agent.login, edge_agent.rights\n"
        "names = zipfile.ZipFile({0!r}).namelist()\n"
        "names = [n[:-3].replace('/', '.') for n in names if n.endswith('.py')]\n"
        "print(*[n for n in names if n not in sys.modules and not n.endswith('__init__')])"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", code.format(str(agent_pyz))],
        capture_output=True,
        text=True,
        check=True,
    )
    assert set(done.stdout.split()) == {
        *("edge_agent." + name for name in OTHER_PROCESSES),
        *("edge_agent.runtimes." + name for name in RUNTIMES),
    }


#: Commands and processes of their own, which start from the file that is there then.
OTHER_PROCESSES = {
    *("__main__", "affinity", "arrayfiles", "blobcache", "chain", "client", "confine"),
    *("evaluator", "handover", "inferring", "loops", "pacing", "streams", "timing"),
    *("litertops", "local", "offload", "onnxtrace", "openvinoops", "policy_command", "stdio"),
    *("tfliteprefix", "worker"),
}
RUNTIMES = {"arrays", "base", "cuda", "echo", "litert", "onnxruntime", "openvino", "tensorrt"}
RUNTIMES |= {"trtbuilder", "trtexec", "trtpart"}
