"""What a model gave for the samples of a data set, put in their order, whoever ran it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from edgesdk.errors import DataError, ProtocolError
from edgesdk.wire.tensors import TensorError, check_specs

if TYPE_CHECKING:
    import numpy as np

__all__ = ["MAX_OUTPUT_BYTES", "Outputs"]

#: Outputs are kept until they are scored together.
MAX_OUTPUT_BYTES = 1 << 30


class Outputs:
    """The outputs of samples, which may come in any order.

    Args:
        batch: Rows of the model's batch that one sample fills.
        spec: Where the samples come from, for messages.
    """

    def __init__(self, *, batch: int, spec: str) -> None:
        self._batch = batch
        self._spec = spec
        self._pieces: dict[str, list[tuple[int, np.ndarray]]] = {}
        self._spans: dict[int, int] = {}
        self._nbytes = 0
        #: The names of outputs of which only the places of the largest values were asked.
        self.reduced: frozenset[str] = frozenset()

    @property
    def batch(self) -> int:
        """Rows of the model's batch that one sample fills."""
        return self._batch

    @property
    def done(self) -> int:
        """How many samples there are from the first on, without a gap."""
        end = 0
        while end in self._spans:
            end += self._spans[end]
        return end

    def add_sample(self, index: int, outputs: Mapping[str, np.ndarray]) -> None:
        """Take what one sample gave.

        Raises:
            DataError: All outputs together are too large to keep.
        """
        import numpy as np

        for name, output in outputs.items():
            self._add(name, index, np.array(output)[np.newaxis])
        self._end_span(index, 1)

    def add_pack(
        self, first: int, count: int, tensors: object, body: bytes, *, device: str
    ) -> None:
        """Take a device's answer to a pack of samples.

        Args:
            first: The number of the pack's first sample.
            count: How many it has.
            tensors: What the answer says of its bytes: see `edgesdk.wire.ops`.
            body: The bytes.
            device: For messages.

        Raises:
            ProtocolError: They contradict each other.
            DataError: All outputs together are too large to keep.
        """
        import numpy as np

        try:
            runs = check_specs(tensors, len(body))
        except TensorError as exc:
            raise ProtocolError(f"cannot read outputs from {device}: {exc}") from exc
        counted: dict[str, int] = {}
        for run in runs:
            name, shape = run["name"], run["shape"]
            if not shape or run.get("first") != counted.get(name, 0):
                raise ProtocolError(
                    f"cannot read outputs from {device}: the samples of {name[:100]!r} have a "
                    "gap"
                )
            try:
                array = np.frombuffer(
                    body, np.dtype(run["dtype"]).newbyteorder("<"), _count(shape), run["offset"]
                ).reshape(shape)
            except (ValueError, OverflowError) as exc:  # nothing, times more than memory has
                raise ProtocolError(
                    f"cannot read outputs from {device}: the shape of {name[:100]!r}: {exc}"
                ) from exc
            self._add(name, first + counted.get(name, 0), array)
            counted[name] = counted.get(name, 0) + shape[0]
            if run.get("top"):
                self.reduced |= {name}
        if set(counted.values()) != {count}:
            raise ProtocolError(
                f"cannot read outputs from {device}: they are not of {count} samples"
            )
        self._end_span(first, count)

    def _add(self, name: str, first: int, array: np.ndarray) -> None:
        self._pieces.setdefault(name, []).append((first, array))
        self._nbytes += array.nbytes
        if self._nbytes > MAX_OUTPUT_BYTES:
            raise DataError(
                f"cannot evaluate on {self._spec}: the outputs of "
                f"{sum(self._spans.values())} samples exceed {MAX_OUTPUT_BYTES >> 20} MiB",
                hint="evaluate on fewer samples: --limit N",
            )

    def _end_span(self, first: int, count: int) -> None:
        if count < 1 or first in self._spans:
            raise DataError(f"cannot evaluate on {self._spec}: sample {first} came twice")
        self._spans[first] = count

    def joined(self) -> dict[str, np.ndarray]:
        """Give the outputs that keep their shape from sample to sample, rows first.

        An output whose first axis is the batch has ``batch`` rows per sample, any other has
        one axis more, of 1 per sample. Only samples before the first gap count.
        """
        import numpy as np

        found = {}
        for name, pieces in self._ordered().items():
            if len({(piece.shape[1:], piece.dtype) for piece in pieces}) == 1:
                rows = [self._rows(piece) for piece in pieces]
                joined = rows[0] if len(rows) == 1 else np.concatenate(rows)
                found[name] = joined.astype(joined.dtype.newbyteorder("="), copy=False)
        return found

    def by_sample(self) -> dict[str, list[np.ndarray]]:
        """Give every output as one array per sample, whatever its shapes."""
        return {
            name: [row for piece in pieces for row in piece]
            for name, pieces in self._ordered().items()
        }

    def _ordered(self) -> dict[str, list[np.ndarray]]:
        done = self.done
        found: dict[str, list[np.ndarray]] = {}
        for name, pieces in self._pieces.items():
            kept = sorted((each for each in pieces if each[0] < done), key=lambda each: each[0])
            if kept:
                found[name] = [piece for _, piece in kept]
        return found

    def _rows(self, piece: np.ndarray) -> np.ndarray:
        """Give a piece whose first axis counts samples one whose first axis counts rows."""
        shape = piece.shape[1:]
        if shape and (shape[0] == self._batch or self._batch != 1):
            return piece.reshape(piece.shape[0] * shape[0], *shape[1:])
        return piece


def _count(shape: list[int]) -> int:
    count = 1
    for extent in shape:
        count *= extent
    return count
