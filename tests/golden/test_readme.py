"""What the README says can be typed, can be typed."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

README = Path(__file__).parents[2] / "README.md"
TEXT = README.read_text(encoding="utf-8")
COMMANDS = sorted(
    {
        " ".join(line.replace("\\\n", " ").split())
        for line in re.findall(
            r"^    (?:host\$ *)?(edgesdk (?:.*\\\n)*.*)$", TEXT, re.MULTILINE
        )
    }
)


def test_no_output_is_left_to_be_filled_in() -> None:
    assert "@@" not in TEXT


def test_links_and_files_exist() -> None:
    for link in re.findall(r"\]\(([^)#]+)\)", TEXT):
        assert (README.parent / link).exists(), link
    for name in re.findall(r"configs/[\w./-]+\w", TEXT):
        assert (README.parent / name).exists(), name


def test_every_make_target_it_names_is_there() -> None:
    makefile = (README.parent / "Makefile").read_text(encoding="utf-8")
    for target in re.findall(r"(?:`|^    )make ([a-z-]+)", TEXT, re.MULTILINE):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_and_option_exists(command: str) -> None:
    words = command.partition("#")[0].split()[1:]
    verbs = [words[0]]
    if words[0] == "history":
        verbs.append(words[1] if words[1] in ("export", "import", "label", "show") else "list")
    if words[0] in ("bundle", "targets", "devices", "agent", "trust", "toolchains"):
        verbs.append(words[1])
    done = subprocess.run(
        [sys.executable, "-m", "edgesdk.cli", *verbs, "--help"],
        capture_output=True,
        text=True,
        check=True,
    )
    for option in (word.partition("=")[0] for word in words if re.match(r"--?[a-z]", word)):
        assert re.search(rf"(^|[\s,]){re.escape(option)}[\s,]", done.stdout), option


@pytest.mark.slow
def test_the_python_of_the_tour_runs(tmp_path: Path, home: Path) -> None:
    found = re.search(r"```python\n(.*?)```", TEXT, re.DOTALL)
    assert found is not None
    (tmp_path / "configs").symlink_to(README.parent / "configs")
    done = subprocess.run(
        [sys.executable, "-c", found.group(1)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert re.match(r"[0-9a-f]{12} \d \d+\.\d\d ms", done.stdout)
