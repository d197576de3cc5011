"""What all tests share: the packed agent, a home of their own, assets beside the checkout."""

from __future__ import annotations

import os
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

ROOT = Path(__file__).resolve().parent.parent

# a busy machine is no failure: hypothesis looks for counterexamples here, not for time
settings.register_profile(
    "edgesdk", deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("edgesdk")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--device", default=None, help="a real device for tests/hardware: a URL or a name"
    )


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, Any, None]:
    """With EDGESDK_NO_SKIPS set, as in CI, what could not run counts as failed."""
    outcome = yield
    report = outcome.get_result()
    if not hasattr(report, "wasxfail"):
        fail_where_skipped(report)


@pytest.hookimpl(hookwrapper=True)
def pytest_make_collect_report(collector: pytest.Collector) -> Generator[None, Any, None]:
    """The same for a whole file that leaves itself out."""
    outcome = yield
    fail_where_skipped(outcome.get_result())


def fail_where_skipped(report: pytest.TestReport | pytest.CollectReport) -> None:
    if report.skipped and os.environ.get("EDGESDK_NO_SKIPS"):
        report.outcome = "failed"
        report.longrepr = f"skipped, and EDGESDK_NO_SKIPS is set: {report.longrepr}"


@pytest.fixture(scope="session")
def root() -> Path:
    """The top level of the checkout."""
    return ROOT


@pytest.fixture(scope="session")
def shared_assets() -> Path:
    """Models and data too large for the repository; tests that need them skip without."""
    given = os.environ.get("EDGESDK_ASSETS")
    folder = Path(given) if given else ROOT.parent / "shared" / "assets"
    if not folder.is_dir():
        pytest.skip(
            f"needs model files: there is no {folder}; set EDGESDK_ASSETS to their folder"
        )
    return folder


@pytest.fixture(scope="session")
def agent_pyz(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The agent, packed as a device gets it."""
    from edgesdk.devices.agentpack import save_agent

    path = tmp_path_factory.mktemp("agent") / "edge-agent.pyz"
    save_agent(path)
    return path


@pytest.fixture(scope="session", autouse=True)
def no_history_of_the_user(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What tests measure is not written among the measurements of whoever runs them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_DATA_HOME", str(tmp_path_factory.mktemp("user-data")))
        yield


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home folder of the test's own, so that no test reads or changes the user's."""
    folder = tmp_path / "home"
    (folder / ".ssh").mkdir(parents=True, mode=0o700)
    monkeypatch.setenv("HOME", str(folder))
    for name in ("STATE", "CONFIG", "CACHE", "DATA"):
        monkeypatch.delenv(f"XDG_{name}_HOME", raising=False)
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    for name in [name for name in os.environ if name.startswith("EDGESDK_")]:
        if name != "EDGESDK_ASSETS":
            monkeypatch.delenv(name)
    return folder
