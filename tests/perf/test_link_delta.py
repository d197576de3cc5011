"""What an edited model costs to deploy is held to limits and to rsync, see `link_delta.py`."""

from __future__ import annotations

import shutil
import sys

import pytest

from tests.perf.link_delta import EQUAL_WITHIN, LINKS, RECOGNISER, Place, models, timed

pytestmark = [pytest.mark.perf, pytest.mark.timeout(600)]

ROUNDS = 7


@pytest.fixture(scope="module", params=["made here", "PP-OCRv4 recogniser"])
def place(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Place:
    if shutil.which("rsync") is None:
        pytest.skip("needs rsync: on Debian and Ubuntu, apt-get install rsync")
    found = models(None)
    if request.param not in found:
        found = models(request.getfixturevalue("shared_assets"))
    if request.param not in found:
        pytest.skip(f"needs {RECOGNISER} in the assets")
    return Place(tmp_path_factory.mktemp("delta"), found[request.param])


def say(what: str, ours: int, theirs: int | str) -> None:
    sys.stdout.write(f"\n{what}: {ours:,} bytes both ways (limit or peer: {theirs})")


def test_the_same_again_costs_one_round_trip_and_no_payload(place: Place) -> None:
    cost = place.cost("identical")
    say("identical", cost.both_ways_bytes, 2000)
    assert cost.payload_bytes == 0
    assert cost.round_trips == 1
    assert cost.both_ways_bytes <= 1000


@pytest.mark.parametrize(("edit", "most_bytes"), [("metadata", 4000), ("renamed", 16_000)])
def test_an_edit_of_text_costs_a_few_kilobytes(
    place: Place, edit: str, most_bytes: int
) -> None:
    cost = place.cost(edit)
    say(edit, cost.both_ways_bytes, most_bytes)
    assert cost.both_ways_bytes <= most_bytes


@pytest.mark.parametrize("edit", ["one tensor", "one tensor new"])
def test_one_tensor_costs_less_than_nine_tenths_of_rsync(place: Place, edit: str) -> None:
    cost, peer = place.cost(edit), place.rsync(edit, "-z")
    say(edit, cost.both_ways_bytes, peer)
    assert cost.both_ways_bytes <= 0.9 * peer


def test_scattered_weights_cost_a_hundredth_of_rsync(place: Place) -> None:
    cost, peer = place.cost("scattered"), place.rsync("scattered")
    say("scattered", cost.both_ways_bytes, peer)
    assert cost.both_ways_bytes <= 0.01 * peer


@pytest.mark.parametrize("edit", ["every weight", "everything"])
def test_a_full_retrain_costs_no_more_than_a_compressed_push(place: Place, edit: str) -> None:
    cost, full = place.cost(edit, compress=True), place.full(edit)
    say(edit, cost.both_ways_bytes, full.both_ways_bytes)
    assert cost.both_ways_bytes <= 1.01 * full.both_ways_bytes


@pytest.mark.parametrize("edit", ["metadata", "one tensor", "one tensor new"])
def test_a_lost_base_costs_no_more_than_rsync(place: Place, edit: str) -> None:
    cost, peer = place.cost(edit, has_base=False), place.rsync(edit)
    say(f"{edit}, base lost", cost.both_ways_bytes, peer)
    assert cost.index_bytes > 0
    assert cost.both_ways_bytes <= peer


@pytest.mark.parametrize("link", LINKS)
def test_looking_for_what_is_not_there_costs_next_to_no_time(link: str) -> None:
    ratio, equal = timed(LINKS[link], rounds=ROUNDS)
    sys.stdout.write(f"\nall new, {link}: {ratio:.3f} (equal arms: {equal:.3f})")
    if abs(equal - 1) > EQUAL_WITHIN:
        pytest.skip(f"two equal arms differ by {equal - 1:+.0%}: the machine is too busy")
    assert ratio <= 1.05
