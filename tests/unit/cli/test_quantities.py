"""Sizes and times as people write them."""

from __future__ import annotations

import pytest

from edgesdk.cli.quantities import read_seconds, read_size
from edgesdk.errors import InputError


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0", 0),
        ("1000", 1000),
        ("2GB", 2 * 10**9),
        ("2 gib", 2 << 30),
        ("1.5M", 3 << 19),
        (".5kB", 500),
    ],
)
def test_size(text: str, size: int) -> None:
    assert read_size(text, option="--budget") == size


@pytest.mark.parametrize(
    ("text", "seconds"), [("20ms", 0.02), ("1.5", 1.5), ("10min", 600.0), ("2H", 7200.0)]
)
def test_time(text: str, seconds: float) -> None:
    assert read_seconds(text, option="--wait", at_most_s=86_400.0) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "GB", "-1", "1e9", "2 GBB", "nan", "inf", "9" * 400])
def test_what_is_no_quantity_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(InputError, match="cannot use --budget") as caught:
        read_size(text, option="--budget")
    assert "2GB" in caught.value.hint
    with pytest.raises(InputError, match="cannot use --wait"):
        read_seconds(text, option="--wait", at_most_s=60.0)


def test_time_beyond_its_limit_is_refused() -> None:
    with pytest.raises(InputError, match=r"cannot use --wait '2h': it is longer than 60 s"):
        read_seconds("2h", option="--wait", at_most_s=60.0)
