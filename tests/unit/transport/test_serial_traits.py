"""How a line is used follows from its speed."""

from __future__ import annotations

import pytest

from edgesdk.transport.serial import line_traits


@pytest.mark.parametrize("baud", [9600, 115_200, 921_600, 3_000_000, 12_000_000])
def test_window_is_bounded_and_a_repeat_waits_until_it_is_out(baud: int) -> None:
    traits = line_traits(baud)
    bytes_per_s = baud / 10
    assert traits.lossy
    assert traits.compress
    assert traits.window_bytes >= 8 * traits.chunk_bytes
    assert traits.window_bytes <= max(8 * traits.chunk_bytes, 0.081 * bytes_per_s)
    assert traits.repeat_s > traits.window_bytes / bytes_per_s
    assert traits.repeat_s < traits.silence_s
