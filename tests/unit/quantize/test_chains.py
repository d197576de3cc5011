"""Long chains of what channels go through are walked once, and without recursion."""

from __future__ import annotations

import itertools
import time

import pytest

from edgesdk.quantize.chains import Chain, find_chains
from tests.unit.quantize.floats import laid_out, named
from tests.unit.quantize.modes import normal

LONG = 600
STEPS = (
    "MaxPool <kernel_shape = [1, 1]>",
    "AveragePool <kernel_shape = [1, 1]>",
    "LeakyRelu",
)


def chains(first: str, step: str, last: str) -> list[Chain]:
    image = "float[1, 4, 4, 4]"
    names = ["c", *(f"t{number}" for number in range(LONG))]
    lines = [f"{name} = {step} ({before})" for before, name in itertools.pairwise(names)]
    text = f"g ({image} x) => ({image} y)\n{{ c = {first}\n{chr(10).join(lines)}\ny = {last} }}"
    model = named(text.replace("END", names[-1]), {"w": normal(4, 4, 1, 1)})
    return find_chains(model, laid_out(model, "onnxruntime-cpu"))


@pytest.mark.parametrize("step", STEPS)
def test_a_long_chain_between_two_convolutions_is_one(step: str) -> None:
    (chain,) = chains("Conv (x, w)", step, "Conv (END, w)")
    assert chain.tensors == ["c", *(f"t{number}" for number in range(LONG))]
    assert chain.writers == [("c", (1,))]
    assert chain.readers == ["y"]
    assert not chain.free


@pytest.mark.parametrize(
    ("first", "last"),
    [("Conv (x, w)", "Sigmoid (END)"), ("Sigmoid (x)", "Conv (END, w)")],
)
def test_a_long_chain_that_ends_otherwise_costs_no_more(first: str, last: str) -> None:
    begun = time.perf_counter()
    assert chains(first, STEPS[0], last) == []
    assert time.perf_counter() - begun < 5
