"""How a line is used follows from its speed."""

from __future__ import annotations

import pytest

from edgesdk.transport.serial import line_traits


@pytest.mark.parametrize("baud", [9600, 115_200, 921_600, 3_000_000, 12_000_000])
def test_what_is_under_way_is_out_long_before_silence_means_trouble(baud: int) -> None:
    traits = line_traits(baud)
    bytes_per_s = baud / 10
    assert traits.compress
    assert traits.chunk_bytes >= 512
    assert traits.window_bytes == 2 * traits.chunk_bytes <= 32 << 10
    assert traits.window_bytes / bytes_per_s < traits.silence_s / 4
