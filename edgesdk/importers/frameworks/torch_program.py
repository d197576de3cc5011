"""Read a program of torch.export without running anything that its file brings along.

``torch.export.load`` of PyTorch 2.13 is no safe reader. Told so by its source, it would

- unpickle with ``weights_only=False`` every weight and constant that says ``use_pickle``, every
  ``opaque_obj_*``, and as a second try whatever the safe unpickler turned down (sample inputs,
  weights of older files);
- evaluate as Python the sizes (``expr_str``, by way of sympy) and the checks of inputs
  (``guards_code``), and write names of values into code that it runs;
- import the modules that containers of inputs and outputs name;
- load compiled libraries (``data/aotinductor``).

So it never sees the file. A new archive is written from what is needed alone: the graph with
each of its texts checked, guards left out, plain containers, and tensors that the restricted
unpickler accepted and we saved again. That one is loaded. Operators are taken from the
libraries of PyTorch that compute; ``from_file``, which reads and writes files, is not.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgesdk.importers.frameworks.torch_archive import (
    FOLDER,
    WHOLE_HINT,
    Archive,
    opened_archive,
)
from edgesdk.importers.frameworks.torch_graph_text import checked_graph, checked_payloads
from edgesdk.importers.frameworks.torch_words import first_line, last_line, quiet
from edgesdk.importers.job import CannotExport, Job

__all__ = ["load_program"]

_MODEL = "model"
_WEIGHTS, _CONSTANTS = "data/weights/", "data/constants/"
_SAMPLES = "data/sample_inputs/model.pt"
_MAX_GRAPH_BYTES = 512 << 20
_TRUST = "--trust loads it as it is, and runs what it brings; do so only with files of your own"


def load_program(job: Job) -> tuple[Any, tuple[Any, ...] | None]:
    """Load the ExportedProgram of a ``.pt2`` file, and the inputs it was exported with.

    Returns:
        The program, and its sample inputs as pytorch saved them (arguments and keywords), or
        None where the file has none that can be read safely.

    Raises:
        CannotExport: The file is spoilt, of another version, or needs what could run code.
    """
    path = Path(job.source)
    clean = job.out / "program.pt2"
    try:
        with opened_archive(path) as archive:
            graph = _read_graph(archive)
            made_by = str(graph.get("torch_version", ""))[:50]
            samples = _safe_tensors(archive, _SAMPLES) if _SAMPLES in archive.records else None
            try:
                _write_clean(archive, graph, clean)
            except CannotExport as exc:
                if not (job.trust and exc.facts.get("runs_code")):
                    raise
                clean = path
        import torch

        with quiet("torch.export"):
            program = torch.export.load(str(clean))
    except (CannotExport, MemoryError):
        raise
    except Exception as exc:  # whatever PyTorch throws at a file it does not understand
        raise _other_version(path, made_by, exc) from exc
    finally:
        if clean != path:
            clean.unlink(missing_ok=True)
    return program, samples if isinstance(samples, tuple) and len(samples) == 2 else None


def _read_graph(archive: Archive) -> dict[str, Any]:
    models = archive.below("models/")
    if "models/model.json" not in models:
        if "serialized_exported_program.json" in archive.records:
            raise CannotExport(
                f"cannot read {archive.path.name}: it is in the format of PyTorch 2.7 or older",
                hint="load it with the PyTorch that wrote it, and save it again with "
                "torch.export.save of PyTorch 2.8 or newer",
            )
        named = ", ".join(sorted(name[7:-5] for name in models)[:5])
        raise CannotExport(
            f"cannot read {archive.path.name}: it holds no program called {_MODEL!r} "
            f"({'it has ' + named if named else 'it holds no program'})",
            hint="save one program: torch.export.save(program, path)",
        )
    try:
        graph = json.loads(archive.read("models/model.json", at_most=_MAX_GRAPH_BYTES))
    except (ValueError, RecursionError) as exc:
        raise CannotExport(
            f"cannot read {archive.path.name}: its graph is no JSON ({exc})",
            hint=WHOLE_HINT,
        ) from exc
    if not isinstance(graph, dict):
        raise CannotExport(
            f"cannot read {archive.path.name}: its graph is no JSON object", hint=WHOLE_HINT
        )
    return graph


def _write_clean(archive: Archive, graph: Mapping[str, Any], clean: Path) -> None:
    _check_byte_order(archive)
    checked = checked_graph(graph, archive.path.name)
    with zipfile.ZipFile(clean, "w", zipfile.ZIP_STORED, allowZip64=True) as out:

        def put(name: str, data: bytes) -> None:
            out.writestr(f"{FOLDER}/{name}", data)

        put("archive_format", b"pt2")
        put("archive_version", b"0")
        put("byteorder", b"little")
        put(".data/version", b"6\n")
        put("models/model.json", json.dumps(checked).encode("utf-8"))
        put(_SAMPLES, b"")
        for folder, config in (
            (_WEIGHTS, "model_weights_config.json"),
            (_CONSTANTS, "model_constants_config.json"),
        ):
            whole = f"{folder}model.pt"
            if whole in archive.records:  # PyTorch 2.8 and before
                put(whole, _saved_again(_safe_tensors(archive, whole, needed=True)))
                continue
            payloads = checked_payloads(_json(archive, folder + config), archive.path.name)
            put(folder + config, json.dumps({"config": payloads}).encode("utf-8"))
            for record, pickled in sorted(
                {(each["path_name"], each["use_pickle"]) for each in payloads.values()}
            ):
                name = folder + record
                if pickled:
                    put(name, _saved_again(_safe_tensors(archive, name, needed=True)))
                else:
                    archive.copy(name, out)


def _json(archive: Archive, name: str) -> object:
    try:
        return json.loads(archive.read(name))
    except (ValueError, RecursionError) as exc:
        raise CannotExport(
            f"cannot read {archive.path.name}: record {name} is no JSON ({exc})",
            hint=WHOLE_HINT,
            record=name,
        ) from exc


def _safe_tensors(archive: Archive, name: str, *, needed: bool = False) -> Any:
    """Unpickle a record by PyTorch's restricted unpickler; None where it will not."""
    import torch

    data = archive.read(name, at_most=1 << 40)
    if not data:
        return None
    try:
        return torch.load(io.BytesIO(data), weights_only=True, map_location="cpu")
    except Exception as exc:  # whatever the unpickler throws, the record is not taken
        if not needed:
            return None
        raise CannotExport(
            f"cannot read {archive.path.name} safely: record {name} is a pickle of more than "
            f"tensors, which runs code when it is loaded",
            hint=f"export the program without custom tensor classes. {_TRUST}",
            record=name,
            seen=first_line(exc),
            runs_code=True,
        ) from exc


def _saved_again(value: Any) -> bytes:
    import torch

    held = io.BytesIO()
    torch.save({} if value is None else value, held)
    return held.getvalue()


def _check_byte_order(archive: Archive) -> None:
    order = archive.read("byteorder") if "byteorder" in archive.records else b"little"
    if order.strip() != b"little":
        raise CannotExport(
            f"cannot read {archive.path.name}: its numbers are in the other byte order "
            f"({order[:20]!r})",
            hint="save it on a little-endian computer",
        )


def _other_version(path: Path, made_by: str, exc: Exception) -> CannotExport:
    import torch

    return CannotExport(
        f"cannot load {path.name}: written by PyTorch {made_by or 'of unknown version'}, "
        f"here is {torch.__version__}: {last_line(exc)}",
        hint="export the model again with the PyTorch version named here",
        written_by=made_by,
        here=str(torch.__version__),
    )
