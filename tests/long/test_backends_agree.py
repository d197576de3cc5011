"""Real models on every backend of this computer: the numbers of onnxruntime on the same graph.

Float results may differ by a ten-thousandth of the largest value, 8-bit results by one step on
all but one element in two hundred, with the same best class on 99 of 100 samples; where there
are labels, accuracy stays within half a point. The table of all models is printed at the end
(``-s``), and written to the file that AGREEMENT_TABLE names.

8-bit answers that miss a bar are held to it kernel by kernel instead, where onnxruntime misses
the same bar against itself when the scales move by their last bit: a graph that magnifies
rounding tells little about a backend. At the outputs a backend may then miss a few times as
many elements as onnxruntime itself does. The table shows all of these numbers.

The two largest networks of drawn weights, which take a quarter of the time and are built like
others that stay, run with ``EDGESDK_ALL_MODELS=1``.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.long.backend_agreement import MODELS, SAME_BEST, WITHIN, Row, table

pytestmark = [pytest.mark.long, pytest.mark.timeout(1800)]

#: Run with EDGESDK_ALL_MODELS alone: the largest, and the one whose samples are files of the
#: computer at hand, so no two computers judge the same (its int8 in LiteRT is near the bar).
_BY_HAND = ("light_densenet121", "light_inception_v2", "magika")
_ALL = bool(os.environ.get("EDGESDK_ALL_MODELS"))
RUN = [name for name in MODELS if _ALL or name not in _BY_HAND]
PROGRAM = Path(__file__).with_name("backend_agreement.py")
_FLOAT, _ACCURACY = 1e-4, 0.005
#: How many times as many elements as in onnxruntime against itself may be off by more than a
#: step: the last bits of other sums than its own are more noise than those of the scales.
_TIMES = 4
#: What is built in one part for LiteRT, in both precisions.
WHOLE_IN_LITERT = frozenset(MODELS) - {
    "fsdd_gru_lstm",  # a Loop, and behind it shapes that are not fixed
    "silero_vad",  # all of it in the branches of an If
}


@pytest.fixture(scope="module")
def rows() -> Iterator[list[Row]]:
    """Collect what was measured, and show it when all is done."""
    found: list[Row] = []
    yield found
    text = table(found)
    sys.stdout.write(f"\n{text}\n")
    if os.environ.get("AGREEMENT_TABLE"):
        Path(os.environ["AGREEMENT_TABLE"]).write_text(text + "\n", encoding="utf-8")


def _measured(model: str, assets: Path, out: Path) -> list[Row]:
    done = subprocess.run(
        [sys.executable, str(PROGRAM), model, "--json", str(out)],
        env=os.environ | {"EDGESDK_ASSETS": str(assets)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    document: dict[str, Any] = json.loads(out.read_text(encoding="utf-8"))
    if document["missing"]:
        pytest.skip(f"needs {model}, which cannot be had: {document['missing'][model]}")
    return [Row(**{**row, "parts": tuple(row["parts"])}) for row in document["rows"]]


def misses(row: Row) -> Iterator[str]:
    """Say which bars a build does not clear."""
    if row.precision == "int8" and row.why_not.startswith("cannot quantize"):
        return  # all of it in bodies of control flow
    if row.why_not:
        yield f"not built: {row.why_not}"
        return
    assert row.rel_error is not None
    if row.precision == "fp32" and row.rel_error > _FLOAT:
        yield f"float differs by {row.rel_error:.1e} of the largest value"
    least = WITHIN
    if row.itself is not None and row.itself < WITHIN:
        least = 1 - _TIMES * (1 - row.itself)
    if row.within is not None and row.within < least:
        yield f"only {row.within:.2%} of the elements are within a step"
    if (
        row.top1 is not None
        and row.top1 < SAME_BEST
        and (row.itself_top1 is None or row.itself_top1 >= SAME_BEST)
    ):
        yield f"only {row.top1:.2%} have the same best class"
    if row.misses and (row.kernels or 0.0) < WITHIN:
        yield f"of a tensor inside, a kernel gives only {row.kernels or 0.0:.2%} within a step"
    if row.accuracy is not None and row.wanted_accuracy is not None:
        lost = abs(row.accuracy - row.wanted_accuracy)
        # one sample more or less is no half point where there are fewer than 200
        if lost > max(_ACCURACY, 1.001 / row.samples):
            yield f"accuracy {row.accuracy:.4f} where the graph has {row.wanted_accuracy:.4f}"


@pytest.mark.parametrize("model", RUN)
def test_every_backend_gives_what_onnxruntime_gives(
    model: str, rows: list[Row], shared_assets: Path, tmp_path: Path
) -> None:
    found = _measured(model, shared_assets, tmp_path / "rows.json")
    rows.extend(found)
    missed = [f"{row.backend} {row.precision}: {miss}" for row in found for miss in misses(row)]
    assert not missed, "\n".join(missed)
    if model in WHOLE_IN_LITERT:
        alone = [row.parts for row in found if row.backend == "litert"]
        assert alone == [("litert",), ("litert",)]
