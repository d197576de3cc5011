"""Whether a device is what a profile says."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgesdk.errors import ProfileError
from edgesdk.profiles import (
    AgentNeeds,
    Identify,
    TargetProfile,
    find_target,
    load_catalog,
    why_not_target,
)
from edgesdk.profiles.identify import require_agent


def board(ram_bytes: int | None = None, **identify: tuple[str, ...]) -> TargetProfile:
    return TargetProfile(
        name="testboard",
        family="testboard",
        vendor="Nobody",
        title="Test board",
        default=False,
        ram_bytes=ram_bytes,
        backends=(),
        agent=AgentNeeds(python="3.9", reach=("ssh",)),
        identify=Identify(**identify),
        provenance=(),
        notes="",
        source=Path("testboard.yaml"),
        digest="",
    )


PI_5: dict[str, Any] = {
    "machine": "aarch64",
    "device_tree_model": "Raspberry Pi 5 Model B Rev 1.0\x00",
    "devices": [],
    "pci": ["14e4:2712"],
    "usb": [],
    "ram_bytes": 8_322_000_000,
}
CORAL_BOARD: dict[str, Any] = {
    "machine": "aarch64",
    "device_tree_model": "Freescale i.MX8MQ Phanbell",
    "devices": ["/dev/apex_0"],
    "pci": ["1ac1:089a"],
    "usb": [],
    "ram_bytes": 1_022_000_000,
}
ORIN_NANO: dict[str, Any] = {
    "machine": "aarch64",
    "device_tree_model": "NVIDIA Jetson Orin Nano Engineering Reference Developer Kit Super",
    "ram_bytes": 7_990_000_000,
}


@pytest.mark.parametrize(
    ("name", "facts"),
    [
        ("raspberry-pi-5", PI_5),
        ("generic-aarch64", PI_5),
        ("coral-dev-board", CORAL_BOARD),
        ("coral-m2", CORAL_BOARD),
        ("jetson-orin-nano", ORIN_NANO),
        ("jetson-orin-nano-4gb", ORIN_NANO),
        ("coral-usb", {"machine": "x86_64", "usb": ["1D6B:0003", "1A6E:089A"]}),
        ("coral-usb", {"machine": "x86_64", "usb": ["1d6b:0003", "18d1:9302"]}),
        ("intel-npu-core-ultra-1", {"machine": "x86_64", "pci": ["8086:7d1d", "8086:7d03"]}),
        ("intel-npu-core-ultra-2", {"machine": "x86_64", "pci": ["8086:643e"]}),
        ("intel-npu-core-ultra-2", {"machine": "x86_64", "pci": ["8086:ad1d"]}),
        ("generic-armv7", {"machine": "armv7l"}),
        ("imx8m-plus", {"machine": "aarch64", "device_tree_model": "NXP i.MX8MPlus EVK board"}),
    ],
)
def test_a_device_that_is_the_target_has_nothing_against_it(
    name: str, facts: dict[str, Any]
) -> None:
    assert why_not_target(find_target(name), facts) == ()


def test_a_device_of_another_kind_is_told_apart_field_by_field() -> None:
    assert why_not_target(
        find_target("raspberry-pi-5"), {**CORAL_BOARD, "machine": "armv7l"}
    ) == (
        "its machine is armv7l (expected aarch64)",
        "its device tree model is Freescale i.MX8MQ Phanbell "
        "(expected Raspberry Pi 5 or Raspberry Pi 5 Model B*)",
    )
    assert why_not_target(find_target("coral-m2"), PI_5) == (
        "its PCI ids are 14e4:2712 (expected 1ac1:089a)",
    )


def test_a_raspberry_pi_500_is_no_raspberry_pi_5() -> None:
    facts = {**PI_5, "device_tree_model": "Raspberry Pi 500 Rev 1.0"}
    assert len(why_not_target(find_target("raspberry-pi-5"), facts)) == 1


def test_a_device_that_does_not_say_is_not_the_target() -> None:
    assert why_not_target(find_target("coral-usb"), {"machine": "x86_64", "usb": []}) == (
        "it has no USB ids (expected 1a6e:089a or 18d1:9302)",
    )
    assert why_not_target(find_target("raspberry-pi-4"), {"machine": "aarch64"}) == (
        "it does not say its device tree model (expected Raspberry Pi 4 Model B*)",
    )


def test_a_module_with_half_the_memory_is_another_module() -> None:
    facts = {**ORIN_NANO, "ram_bytes": 3_900_000_000}
    assert why_not_target(find_target("jetson-orin-nano"), facts) == (
        "its memory is 3719 MiB "
        "(expected 8192 MiB, of which it would report 6144 MiB at least)",
    )
    assert why_not_target(find_target("jetson-orin-nano"), {**facts, "ram_bytes": "8 GB"}) == (
        "it does not say its memory (expected 8192 MiB)",
    )


def test_nothing_asked_is_nothing_against_it() -> None:
    assert why_not_target(board(), {}) == ()


def test_every_field_must_match_and_any_glob_in_it_will_do() -> None:
    profile = board(machine=("x86_64", "aarch64"), devices=("/dev/apex_*",))
    assert why_not_target(profile, {"machine": "aarch64", "devices": ["/dev/apex_1"]}) == ()
    assert why_not_target(profile, {"machine": "aarch64", "devices": ["/dev/video0"]}) == (
        "its device nodes are /dev/video0 (expected /dev/apex_*)",
    )


def test_what_a_device_says_cannot_play_tricks_on_the_terminal() -> None:
    (reason,) = why_not_target(
        board(machine=("aarch64",)), {"machine": "\x1b[2Jgotcha" + "x" * 9999}
    )
    assert "\x1b" not in reason
    assert len(reason) < 400


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=8,
)
FIELDS = ["machine", "device_tree_model", "cpu_model", "devices", "pci", "usb", "ram_bytes"]


@given(facts=st.dictionaries(st.sampled_from(FIELDS), JSON))
def test_whatever_a_device_says_gets_sentences(facts: dict[str, object]) -> None:
    profile = board(
        ram_bytes=1 << 30,
        machine=("aarch64",),
        device_tree_model=("Test*",),
        cpu_model=("*A72*",),
        devices=("/dev/x",),
        pci=("1:1",),
        usb=("1:1",),
    )
    reasons = why_not_target(profile, facts)
    assert all(reason.startswith("it") and reason.isprintable() for reason in reasons)


def test_no_two_boards_with_a_model_of_their_own_are_taken_for_each_other() -> None:
    boards = [p for p in load_catalog().values() if p.identify.device_tree_model]
    by_model = {p.identify.device_tree_model: p.family for p in boards}
    assert len(by_model) >= 8
    for profile in boards:
        for globs, family in by_model.items():
            name = globs[0].replace("*", " ").strip()
            matches = not why_not_target(
                profile,
                {
                    "machine": "aarch64",
                    "device_tree_model": name,
                    "pci": ["1ac1:089a"],
                    "ram_bytes": 1 << 40,
                },
            )
            assert matches == (profile.identify.device_tree_model == globs), (name, family)


def test_a_target_without_an_agent_is_refused_with_what_to_do() -> None:
    require_agent(board())
    bare = replace(board(), agent=AgentNeeds(python="", reach=()))
    with pytest.raises(ProfileError, match="no agent runs there") as caught:
        require_agent(bare)
    assert "edgesdk bundle export" in caught.value.hint
    assert caught.value.exit_code == 2
