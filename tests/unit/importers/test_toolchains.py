"""Environments of importers: whole or not there, whatever comes between."""

from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
import sys
import textwrap
import time
import zipfile
from pathlib import Path

import pytest

from edgesdk.errors import InputError, ToolchainError
from edgesdk.importers import toolchains
from edgesdk.importers.detect import FORMATS
from edgesdk.importers.toolchain_spec import (
    ToolchainSpec,
    find_toolchain,
    load_toolchain,
    shipped_toolchains,
)
from edgesdk.importers.toolchains import Toolchains

GOOD = """
schema: 1
name: tiny
about: two lines of Python
python: ">=3.11,<3.99"
packages:
  - tiny==1.0
imports: [tiny]
"""


def write_wheel(folder: Path, code: str, *, version: str = "1.0") -> None:
    """Write a wheel of one module called ``tiny``."""
    info = f"tiny-{version}.dist-info"
    folder.mkdir(exist_ok=True)
    with zipfile.ZipFile(folder / f"tiny-{version}-py3-none-any.whl", "w") as wheel:
        wheel.writestr("tiny.py", code)
        wheel.writestr(
            f"{info}/METADATA", f"Metadata-Version: 2.1\nName: tiny\nVersion: {version}\n"
        )
        wheel.writestr(
            f"{info}/WHEEL",
            "Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        )
        wheel.writestr(f"{info}/RECORD", "")


@pytest.fixture
def spec(tmp_path: Path) -> ToolchainSpec:
    path = tmp_path / "tiny.yaml"
    path.write_text(GOOD)
    return load_toolchain(path)


@pytest.fixture
def wheels(tmp_path: Path) -> Path:
    folder = tmp_path / "wheels"
    write_wheel(folder, "answer = 42\n")
    return folder


@pytest.fixture
def store(tmp_path: Path) -> Toolchains:
    return Toolchains(tmp_path / "store")


def test_a_toolchain_is_made_once_found_and_removed(
    spec: ToolchainSpec, wheels: Path, store: Toolchains
) -> None:
    steps: list[tuple[int, int | None]] = []
    made = store.make(
        spec, wheels=wheels, on_progress=lambda at: steps.append((at.done, at.total))
    )
    said = subprocess.run(
        [made.interpreter, "-I", "-c", "import tiny, sys; print(tiny.answer, sys.prefix)"],
        capture_output=True, text=True, check=True,
    ).stdout.split()  # fmt: skip
    assert said == ["42", str(made.folder)]
    assert made.versions["tiny"] == "1.0"
    assert made.size_bytes > 0
    assert steps == sorted(steps)
    assert steps[-1][0] == steps[-1][1]
    began = time.monotonic()
    assert store.make(spec, wheels=Path("/nowhere")) == made == store.find(spec)
    assert time.monotonic() - began < 1
    assert store.present() == [made]
    assert store.remove("tin") == []
    assert not (store.root / ".tin.lock").exists()
    assert store.remove("tiny") == [made]
    assert store.find(spec) is None
    assert not made.folder.exists()


def test_another_list_is_another_toolchain(spec: ToolchainSpec) -> None:
    other = dataclasses.replace(spec, packages=("tiny==1.1",))
    assert spec.digest(11) != other.digest(11)
    assert spec.digest(11) != spec.digest(12)


def test_a_package_that_is_not_there_is_an_error_that_says_how_to_bring_it(
    spec: ToolchainSpec, tmp_path: Path, store: Toolchains
) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(ToolchainError, match=r"pip says ERROR: .*tiny==1\.0") as caught:
        store.make(spec, wheels=tmp_path / "empty")
    assert "pip download -d" in caught.value.hint
    assert "tiny==1.0" in caught.value.hint
    assert [each.name for each in store.root.iterdir()] == [".tiny.lock"]


def test_no_network_says_what_to_do_without_one(
    spec: ToolchainSpec, store: Toolchains, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    monkeypatch.setenv("PIP_RETRIES", "0")
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    for name in ("PIP_EXTRA_INDEX_URL", "PIP_FIND_LINKS"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(ToolchainError, match="pip says ERROR") as caught:
        store.make(spec)
    assert "edgesdk toolchains make tiny --wheels wheels" in caught.value.hint


def test_nothing_of_the_folder_or_the_user_gets_between(
    spec: ToolchainSpec,
    wheels: Path,
    store: Toolchains,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    hostile = tmp_path / "hostile"
    hostile.mkdir()
    for name in ("pip.py", "venv.py", "json.py"):
        (hostile / name).write_text(
            f"open({str(tmp_path / 'ran')!r}, 'w')\nraise SystemExit(1)\n"
        )
    write_wheel(hostile, "answer = 43\n")  # as if it were installed for the user
    with zipfile.ZipFile(hostile / "tiny-1.0-py3-none-any.whl") as wheel:
        wheel.extractall(hostile)
    monkeypatch.chdir(hostile)
    monkeypatch.setenv("PYTHONPATH", str(hostile))
    made = store.make(spec, wheels=wheels)
    monkeypatch.delenv("PYTHONPATH")
    said = subprocess.run(
        [made.interpreter, "-I", "-c", "import tiny; print(tiny.answer)"],
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    assert said == "42\n"
    assert not (tmp_path / "ran").exists()


def test_removing_leaves_what_is_not_of_our_making(
    spec: ToolchainSpec, wheels: Path, store: Toolchains
) -> None:
    thesis = store.root / "tiny-thesis" / "chapter"
    thesis.mkdir(parents=True)
    store.make(spec, wheels=wheels)
    assert len(store.remove("tiny")) == 1
    assert thesis.is_dir()


def test_making_again_that_fails_keeps_what_was_there(
    spec: ToolchainSpec, wheels: Path, store: Toolchains, tmp_path: Path
) -> None:
    made = store.make(spec, wheels=wheels)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ToolchainError):
        store.make(spec, wheels=tmp_path / "empty", again=True)
    assert store.find(spec) == made
    assert store.make(spec, wheels=wheels, again=True).versions == made.versions
    assert sorted(each.name for each in store.root.iterdir()) == [
        ".tiny.lock",
        made.folder.name,
    ]


def test_a_module_that_does_not_load_leaves_nothing(
    spec: ToolchainSpec, tmp_path: Path, store: Toolchains
) -> None:
    write_wheel(tmp_path / "broken", "raise OSError('libtiny.so is missing')\n")
    with pytest.raises(ToolchainError, match=r"cannot load its modules: .*libtiny\.so"):
        store.make(spec, wheels=tmp_path / "broken")
    assert store.present() == []
    assert [each.name for each in store.root.iterdir()] == [".tiny.lock"]


def test_what_a_kill_left_behind_does_not_count_and_is_cleared_away(
    spec: ToolchainSpec, wheels: Path, store: Toolchains
) -> None:
    half = store.root / f"tiny-{spec.digest(sys.version_info.minor)[:12]}"
    (half / "bin").mkdir(parents=True)
    (half / "bin" / "python").symlink_to(sys.executable)
    (half / "left").write_text("over")
    assert store.find(spec) is None
    made = store.make(spec, wheels=wheels)
    assert made.folder == half
    assert not (half / "left").exists()


def test_an_interpreter_that_was_removed_is_noticed(
    spec: ToolchainSpec, wheels: Path, store: Toolchains
) -> None:
    made = store.make(spec, wheels=wheels)
    made.interpreter.unlink()
    assert store.find(spec) is None


def test_interrupting_leaves_no_half_environment(
    spec: ToolchainSpec, tmp_path: Path, store: Toolchains
) -> None:
    slow, loading = tmp_path / "slow", tmp_path / "loading"
    write_wheel(slow, f"import time\nopen({str(loading)!r}, 'w')\ntime.sleep(600)\n")
    # a job in the background ignores SIGINT, and so would what it starts
    code = textwrap.dedent(
        f"""
        import signal
        from pathlib import Path
        from edgesdk.importers.toolchain_spec import load_toolchain
        from edgesdk.importers.toolchains import Toolchains
        signal.signal(signal.SIGINT, signal.default_int_handler)
        spec = load_toolchain(Path({str(tmp_path / "tiny.yaml")!r}))
        Toolchains(Path({str(store.root)!r})).make(spec, wheels=Path({str(slow)!r}))
        """
    )
    with subprocess.Popen([sys.executable, "-c", code], start_new_session=True) as process:
        try:
            deadline = time.monotonic() + 60
            while not loading.exists():
                assert time.monotonic() < deadline
                assert process.poll() is None
                time.sleep(0.05)
            os.killpg(process.pid, signal.SIGINT)  # as a terminal does
            assert process.wait(20) != 0
        finally:
            process.kill()
    assert [each.name for each in store.root.iterdir()] == [".tiny.lock"]


def test_a_python_that_has_no_wheels_is_said(spec: ToolchainSpec, store: Toolchains) -> None:
    other = dataclasses.replace(spec, oldest=97, below=99)
    with pytest.raises(ToolchainError, match=r"Python 3\.97 to 3\.98, this is") as caught:
        store.make(other)
    assert "python3.97" in caught.value.hint


def test_another_python_on_path_is_taken(
    spec: ToolchainSpec, wheels: Path, store: Toolchains, monkeypatch: pytest.MonkeyPatch
) -> None:
    minor = sys.version_info.minor
    there = {f"python3.{minor}": sys.executable}
    monkeypatch.setattr(ToolchainSpec, "takes", lambda self, asked: False)
    monkeypatch.setattr(toolchains.shutil, "which", there.get)
    assert store.make(spec, wheels=wheels).python == f"3.{minor}"


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("tiny==1.0", "tiny>=1.0", "a package is not 'name==version'"),
        ("tiny==1.0", "tiny @ http://elsewhere/tiny.whl", "a package is not"),
        ("tiny==1.0", "--index-url=http://elsewhere", "a package is not"),
        ('">=3.11,<3.99"', '">=3.11"', "python is"),
        ("name: tiny", "name: other", "expected that of the file"),
        ("imports: [tiny]", "imports: ['os; os.remove']", "an import is no module's name"),
        ("imports: [tiny]", "", "it has the keys"),
        ("schema: 1", "schema: 2", "schema: 1"),
    ],
)
def test_a_list_says_what_is_wrong_with_it(
    tmp_path: Path, old: str, new: str, says: str
) -> None:
    path = tmp_path / "tiny.yaml"
    path.write_text(GOOD.replace(old, new))
    with pytest.raises(InputError, match=says):
        load_toolchain(path)


def test_a_package_may_be_another_on_another_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "tiny.yaml"
    path.write_text(
        GOOD.replace(
            "  - tiny==1.0\n",
            "  - \"tiny==1.0; platform_machine == 'x86_64'\"\n"
            "  - \"tiny-arm==1.1; platform_machine != 'x86_64'\"\n",
        )
    )
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    assert load_toolchain(path).packages == ("tiny==1.0",)
    monkeypatch.setattr("platform.machine", lambda: "aarch64")
    assert load_toolchain(path).packages == ("tiny-arm==1.1",)


def test_every_format_has_its_toolchain_and_every_toolchain_its_format() -> None:
    assert {each.toolchain for each in FORMATS.values()} == set(shipped_toolchains())
    assert find_toolchain("torch").packages
    with pytest.raises(InputError, match="cannot find toolchain 'torhc'") as caught:
        find_toolchain("torhc")
    assert "torch" in caught.value.hint
