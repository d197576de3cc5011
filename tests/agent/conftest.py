"""Starts packed agents on the oldest, the newest and the usual interpreters."""

from __future__ import annotations

import contextlib
import importlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.agent import agent_driver
from tests.agent.agent_driver import AgentProcess, Start
from tests.agent.signing_driver import Key


@pytest.fixture(scope="session")
def agent_modules() -> Iterator[Callable[[str], Any]]:
    """Import modules of the agent into this process, for tests of their pure functions."""
    folder = str(Path(__file__).parents[2] / "device_agents")
    sys.path.insert(0, folder)
    yield importlib.import_module
    sys.path.remove(folder)


@pytest.fixture
def state(tmp_path: Path) -> Path:
    return tmp_path / "state"


@pytest.fixture(params=agent_driver.VERSIONS)
def python(request: pytest.FixtureRequest) -> str:
    found = agent_driver.find_python(request.param)
    if found is None:
        pytest.skip(f"there is no CPython {request.param} here (looked in pyenv and PATH)")
    return found


@pytest.fixture(scope="session")
def oldest_python() -> str:
    for version in agent_driver.VERSIONS:
        found = agent_driver.find_python(version)
        if found is not None:
            return found
    return sys.executable


@pytest.fixture
def start(agent_pyz: Path, state: Path, oldest_python: str) -> Iterator[Start]:
    """Start an agent; by default ``stdio`` on the oldest interpreter there is."""
    with contextlib.ExitStack() as stack:

        def start_agent(
            *arguments: str,
            python: str = oldest_python,
            command: str = "stdio",
            greet: bool = True,
            env: dict[str, str] | None = None,
        ) -> AgentProcess:
            line = [python, "-I", "-S", str(agent_pyz), command, "--state", str(state)]
            agent = AgentProcess([*line, *arguments], greet=greet, env=env)
            return stack.enter_context(agent)

        yield start_agent


@pytest.fixture
def agent(start: Start) -> AgentProcess:
    return start()


@pytest.fixture(scope="session")
def mine(tmp_path_factory: pytest.TempPathFactory) -> Key:
    """A key of the user's."""
    return Key(tmp_path_factory.mktemp("mine"))


@pytest.fixture(scope="session")
def other(tmp_path_factory: pytest.TempPathFactory) -> Key:
    """A key of somebody else's."""
    return Key(tmp_path_factory.mktemp("other"))
