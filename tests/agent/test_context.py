"""A request whose asker goes away: what ends its work, and what must not be ended with it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest


@pytest.fixture
def context(agent_modules: Callable[[str], Any]) -> Any:
    return agent_modules("edge_agent.context").Context("run", lambda meta: None)


def test_cancelling_ends_the_block_and_nothing_after_it(context: Any) -> None:
    ended: list[str] = []
    context.cancel()
    assert context.is_cancelled()
    with context.ended_by(lambda: ended.append("first")):
        context.cancel()
    context.cancel()
    assert ended == ["first"]


def test_a_block_is_not_left_while_its_end_is_at_work(context: Any) -> None:
    """The worker that the next request gets must not be killed for the one before."""
    at_work, go_on, left = threading.Event(), threading.Event(), threading.Event()
    was_left_early: list[bool] = []

    def end() -> None:
        at_work.set()
        assert go_on.wait(10.0)
        was_left_early.append(left.is_set())

    def work() -> None:
        with context.ended_by(end):
            assert at_work.wait(10.0)
        left.set()

    working = threading.Thread(target=work)
    cancelling = threading.Thread(target=context.cancel)
    working.start()
    while context._ends_it is None:
        pass
    cancelling.start()
    assert at_work.wait(10.0)
    assert not left.wait(0.2)
    go_on.set()
    for thread in (working, cancelling):
        thread.join(10.0)
    assert left.is_set()
    assert was_left_early == [False]
