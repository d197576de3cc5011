"""What `edgesdk.transport.ssh` leaves out of paramiko costs nobody a feature of it."""

from __future__ import annotations

import json
import subprocess
import sys


def in_child(code: str) -> dict[str, bool]:
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    found: dict[str, bool] = json.loads(done.stdout)
    return found


def test_ssh_is_imported_without_what_paramiko_does_not_need_for_it() -> None:
    code = (
        "import json, sys; import edgesdk.transport.ssh\n"
        "names = ('invoke', 'asyncio', 'unittest', 'yaml', 'numpy')\n"
        "print(json.dumps({name: name in sys.modules for name in names}))"
    )
    assert not any(in_child(code).values())


def test_others_in_the_process_have_the_whole_of_paramiko() -> None:
    code = (
        "import json, sys; import edgesdk.transport.ssh, paramiko\n"
        "lines = 'Match exec \"{}\"\\n  User {}\\n'\n"
        "def user(command):\n"
        "    read = paramiko.SSHConfig.from_text(lines.format(command, 'there'))\n"
        "    return read.lookup('host').get('user') == 'there'\n"
        "print(json.dumps({'yes': user('true'), 'no': user('false')}))"
    )
    assert in_child(code) == {"yes": True, "no": False}


def test_program_that_has_imported_it_before_keeps_it() -> None:
    code = (
        "import json; import invoke, paramiko, edgesdk.transport.ssh\n"
        "print(json.dumps({'same': paramiko.config.invoke is invoke}))"
    )
    assert in_child(code) == {"same": True}
