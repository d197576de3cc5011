"""Read what the check vectors gave, and compare the outputs with the float model."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from edgesdk.deploy.push import BlobSource
from edgesdk.deploy.values import OutputCheck, RuntimeUsed, SelfCheck, VectorCheck
from edgesdk.devices.text import clean_text, clean_value
from edgesdk.errors import BundleError, ProtocolError
from edgesdk.tensors import unpack_tensors
from edgesdk.wire.frames import Frame

if TYPE_CHECKING:
    import numpy as np

__all__ = ["read_self_check", "why_not_passed"]

#: More elements has no output, and sums of these stay what a report can hold.
_MAX_COUNT = 1 << 48


def _number(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    # not by isfinite, which raises for a whole number of 400 digits
    return float(value) if abs(value) <= sys.float_info.max else None


def _count(value: object) -> int:
    return value if type(value) is int and 0 <= value <= _MAX_COUNT else 0


def _records(value: object) -> Iterator[Mapping[str, Any]]:
    """Give the objects in a list from the device, whatever else it holds."""
    for record in value if isinstance(value, list) else ():
        if isinstance(record, dict):
            yield record


def read_self_check(frame: Frame, bundle: BlobSource) -> SelfCheck:
    """Read the answer to ``check``.

    Where the outputs themselves came along they are compared with what the float model gave, as
    recorded in the bundle.

    Raises:
        ProtocolError: It passed nothing and failed nothing, or contradicts itself.
        BundleError: A check vector's blob cannot be read here.
    """
    meta = frame.meta
    vectors = tuple(
        VectorCheck(
            index=_count(vector.get("index")),
            outputs=tuple(_output(output) for output in _records(vector.get("outputs"))),
        )
        for vector in _records(meta.get("vectors"))
    )
    passed = meta.get("passed")
    wanted = len(bundle.manifest["checks"])
    within = all(output.within for vector in vectors for output in vector.outputs)
    if not isinstance(passed, bool) or (passed and (len(vectors) != wanted or not within)):
        raise ProtocolError(
            f"cannot read the outcome of the check vectors: passed is {passed!r}, "
            f"{len(vectors)} of {wanted} vectors were answered"
        )
    specs = meta.get("tensors")
    if isinstance(specs, list) and specs:
        vectors = tuple(
            _with_reference(vector, specs, frame.body, bundle) for vector in vectors
        )
    return SelfCheck(
        passed=passed,
        reused=meta.get("reused") is True,
        vectors=vectors,
        runtimes=tuple(_runtime(record) for record in _records(meta.get("runtimes"))),
        load_ms=_number(meta.get("load_ms")),
        cold_start_ms=_number(meta.get("cold_start_ms")),
    )


def _output(record: Mapping[str, Any]) -> OutputCheck:
    return OutputCheck(
        name=clean_text(record.get("name", ""), limit=500),
        within=record.get("within") is True,
        max_abs_error=_number(record.get("max_abs_error")),
        allowed=_number(record.get("allowed")),
        mismatches=_count(record.get("mismatches")),
        elements=_count(record.get("elements")),
        cosine=_number(record.get("cosine")),
        why=clean_text(record.get("why", ""), limit=300),
    )


def _runtime(record: Mapping[str, Any]) -> RuntimeUsed:
    version, backend = record.get("version"), record.get("backend")
    detail = clean_value(record.get("detail", {}))
    return RuntimeUsed(
        part=_count(record.get("part")),
        runtime=clean_text(record.get("runtime", ""), limit=100),
        version=clean_text(version, limit=100) if isinstance(version, str) else None,
        detail=detail if isinstance(detail, dict) else {},
        backend=clean_text(backend, limit=128) if isinstance(backend, str) else None,
    )


def _with_reference(
    vector: VectorCheck, specs: list[Any], body: bytes, bundle: BlobSource
) -> VectorCheck:
    record = bundle.manifest["checks"][vector.index : vector.index + 1]
    mine = [s for s in specs if isinstance(s, dict) and s.get("vector") == vector.index]
    if not record or not record[0]["reference"]:
        return vector
    path = bundle.blob_path(record[0]["blob"]["sha256"])
    try:
        blob = path.read_bytes()
    except OSError as exc:
        raise BundleError(
            f"cannot read check vector {vector.index}: {exc.strerror}", path=str(path)
        ) from exc
    reference = unpack_tensors(record[0]["reference"], blob)
    got = unpack_tensors(mine, body)
    return replace(
        vector,
        outputs=tuple(
            _compare(output, got[output.name], reference[output.name])
            if output.name in got and output.name in reference
            else output
            for output in vector.outputs
        ),
    )


def _compare(output: OutputCheck, got: np.ndarray, reference: np.ndarray) -> OutputCheck:
    """Add cosine, largest error and top-1 agreement of ``got`` against the float model."""
    import numpy as np

    from edgesdk.data.metrics import cosine, max_abs_error

    if got.shape != reference.shape or not got.size:
        return output
    if not (np.isfinite(got).all() and np.isfinite(reference).all()):
        return output
    top1 = None
    if got.ndim == 2 and got.shape[-1] > 1:  # rows of scores; a map or boxes have no top-1
        top1 = bool((got.argmax(axis=-1) == reference.argmax(axis=-1)).all())
    return replace(
        output,
        reference_cosine=cosine(reference, got),
        reference_max_abs_error=max_abs_error(reference, got),
        reference_top1_agrees=top1,
    )


def why_not_passed(check: SelfCheck) -> str:
    """Say which output is off, and by how much."""
    for vector in check.vectors:
        for output in vector.outputs:
            if output.why:
                return f"check vector {vector.index}: output {output.name}: {output.why}"
            if not output.within:
                error = (
                    "not a number"
                    if output.max_abs_error is None
                    else f"{output.max_abs_error:g}"
                )
                allowed = "nothing" if output.allowed is None else f"{output.allowed:g}"
                return (
                    f"check vector {vector.index}: output {output.name} is off by {error} "
                    f"(allowed {allowed}; {output.mismatches} of {output.elements} elements)"
                )
    return "its check vectors did not pass"
