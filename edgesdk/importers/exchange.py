"""A job and its answer as plain data with arrays beside it; both ends read and write here."""

from __future__ import annotations

import importlib
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgesdk.importers.archives import ZIP_ERRORS
from edgesdk.importers.job import CannotExport, Example, Exported, Job, Layer

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["job_record", "perform_request", "read_exported"]

_MAX_TEXT = 4000
_MAX_NOTES = 50
#: What comes of reading fields and arrays that are other ones than expected.
_NONSENSE: tuple[type[Exception], ...] = (*ZIP_ERRORS, TypeError, AttributeError)


def job_record(job: Job) -> dict[str, Any]:
    """Describe a job as plain data; its example arrays are written into its folder."""
    _write_arrays(job.out / "examples.npz", job.examples)
    return {
        "source": str(job.source),
        "kind": job.kind,
        "name": job.name,
        "out": str(job.out),
        "shapes": {name: list(shape) for name, shape in job.shapes.items()},
        "opset": job.opset,
        "dynamic": list(job.dynamic),
        "trust": job.trust,
        "examples": len(job.examples),
        "trace": job.trace,
    }


def perform_request(request: Mapping[str, Any], say: Callable[[str], None]) -> dict[str, Any]:
    """Do a job where we are, and describe the outcome; errors of an exporter are outcomes."""
    out = Path(request["out"])
    job = Job(
        source=Path(request["source"]),
        kind=request["kind"],
        name=request["name"],
        out=out,
        shapes={name: tuple(shape) for name, shape in request["shapes"].items()},
        opset=request["opset"],
        dynamic=tuple(request["dynamic"]),
        trust=request["trust"],
        examples=_read_arrays(out / "examples.npz", request["examples"]),
        trace=request["trace"],
        on_step=say,
    )
    exporter = importlib.import_module(request["exporter"])
    try:
        exported: Exported = exporter.export(job)
    except CannotExport as exc:
        return {"error": _error_record(exc)}
    except MemoryError:
        raise
    except Exception as exc:  # noqa: BLE001  # whatever a framework throws is an outcome
        return {"bug": f"{type(exc).__name__}: {exc}"[:_MAX_TEXT], "where": _where(exc)}
    return _exported_record(exported, out)


def read_exported(record: Mapping[str, Any], out: Path) -> Exported:
    """Read back what `perform_request` described; nothing outside ``out`` is looked at.

    Raises:
        ValueError: The record or its arrays make no sense.
    """
    model = str(record.get("model"))
    if Path(model).name != model or not _is_file(out / model):
        raise ValueError(f"{model!r} is no file of its folder")
    try:
        return Exported(
            model=out / model,
            opset=int(record["opset"]),
            versions={str(k)[:100]: str(v)[:100] for k, v in record["versions"].items()},
            examples=tuple(
                Example(
                    inputs=_named(out / f"in{index}.npz", each["inputs"]),
                    outputs=_named(out / f"out{index}.npz", each["outputs"]),
                )
                for index, each in enumerate(record["examples"])
            ),
            layers=tuple(_layers(record["layers"], out)),
            notes=tuple(str(note)[:_MAX_TEXT] for note in record["notes"][:_MAX_NOTES]),
        )
    except _NONSENSE as exc:
        raise ValueError(f"{type(exc).__name__}: {exc}") from exc


def _exported_record(exported: Exported, out: Path) -> dict[str, Any]:
    examples = []
    for index, each in enumerate(exported.examples):
        _write_arrays(out / f"in{index}.npz", tuple(each.inputs.values()))
        _write_arrays(out / f"out{index}.npz", tuple(each.outputs.values()))
        examples.append({"inputs": list(each.inputs), "outputs": list(each.outputs)})
    _write_arrays(out / "layers.npz", tuple(layer.value for layer in exported.layers))
    return {
        "model": exported.model.name,
        "opset": exported.opset,
        "versions": dict(exported.versions),
        "examples": examples,
        "layers": [[layer.name, layer.tensor] for layer in exported.layers],
        "notes": list(exported.notes),
    }


def _error_record(exc: CannotExport) -> dict[str, Any]:
    facts = {name: str(value)[:_MAX_TEXT] for name, value in exc.facts.items()}
    return {"problem": str(exc)[:_MAX_TEXT], "hint": exc.hint[:_MAX_TEXT], "facts": facts}


def _where(exc: BaseException) -> str:
    return "".join(traceback.format_tb(exc.__traceback__))[-_MAX_TEXT:]


def _is_file(path: Path) -> bool:
    return path.is_file() and not path.is_symlink()


def _named(path: Path, names: Sequence[str]) -> dict[str, NDArray[np.generic]]:
    return dict(zip(names, _read_arrays(path, len(names)), strict=True))


def _layers(names: Sequence[Sequence[str]], out: Path) -> list[Layer]:
    values = _read_arrays(out / "layers.npz", len(names))
    return [
        Layer(name=str(name), tensor=str(tensor), value=value)
        for (name, tensor), value in zip(names, values, strict=True)
    ]


def _write_arrays(path: Path, arrays: Sequence[NDArray[np.generic]]) -> None:
    import numpy as np

    if arrays:
        np.savez(path, *arrays, allow_pickle=False)


def _read_arrays(path: Path, count: int) -> tuple[NDArray[np.generic], ...]:
    import numpy as np

    if not count:
        return ()
    with np.load(path, allow_pickle=False) as held:
        return tuple(held[f"arr_{index}"] for index in range(count))
