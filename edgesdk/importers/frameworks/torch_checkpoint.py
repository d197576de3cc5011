"""A checkpoint of ``torch.save``: weights without a graph, or a pickled module.

Neither is loaded unless the user trusts the file. A state dict cannot become a graph at all; a
pickled module can, if its class can be imported, and loading it runs its code. What a pickle
would import is read off its opcodes, so that the error can name it.
"""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

from edgesdk.importers.frameworks.pickle_scan import named_globals
from edgesdk.importers.frameworks.torch_archive import opened_archive
from edgesdk.importers.job import CannotExport, Job

__all__ = ["load_checkpoint", "refuse_checkpoint"]

_MAX_PICKLE_BYTES = 256 << 20
#: Pickles in a row in a file from before PyTorch 1.6: a magic number, a version, the system's
#: facts, the object and the keys of its storages.
_LEGACY_PICKLES = 5
#: Beginnings of what weights alone name, as PyTorch's restricted unpickler lists it.
_WEIGHTS_NAMES = (
    "torch._utils._rebuild_",
    "torch._tensor._rebuild_",
    "torch.storage.",
    "torch.nn.parameter.",
    "torch.Size",
    "torch.device",
    "torch.serialization._get_layout",
    "collections.OrderedDict",
    "collections.Counter",
    "collections.defaultdict",
    "_codecs.encode",
)
_WEIGHTS_CLASSES = ("Storage", "Tensor")
_BUILD = (
    "build the module, load its weights, and give the program: torch.export.save("
    "torch.export.export(module.eval(), inputs), 'model.pt2'); or from Python "
    "edgesdk.from_torch(module, inputs)"
)


def load_checkpoint(job: Job) -> Any:
    """Load the module of a checkpoint that is trusted.

    Raises:
        CannotExport: It is not trusted, holds weights alone, or its class is not to be found.
    """
    refuse_checkpoint(job)
    return _load(Path(job.source))


def refuse_checkpoint(job: Job) -> None:
    """Read what a checkpoint names, and refuse what cannot or may not be loaded.

    Raises:
        CannotExport: It is not trusted, or holds weights alone.
    """
    path = Path(job.source)
    foreign = [name for name in _names_in(path) if not _is_of_weights(name)]
    if not foreign:
        raise CannotExport(
            f"cannot export {path.name}: it holds weights, and no graph that uses them",
            hint=_BUILD,
        )
    if not job.trust:
        raise _refusal(path, foreign)


def _names_in(path: Path) -> tuple[str, ...]:
    if zipfile.is_zipfile(path):
        with opened_archive(path) as archive:
            return named_globals(archive.read("data.pkl", at_most=_MAX_PICKLE_BYTES))
    with path.open("rb") as stream:
        return named_globals(stream.read(_MAX_PICKLE_BYTES), pickles=_LEGACY_PICKLES)


def _is_of_weights(name: str) -> bool:
    if name.startswith(("torch.", "torch._")) and name.endswith(_WEIGHTS_CLASSES):
        return name.count(".") <= 2
    if name.startswith("torch.") and name.count(".") == 1:
        return name[6:].islower()  # a dtype
    return name.startswith(_WEIGHTS_NAMES)


def _refusal(path: Path, foreign: list[str]) -> CannotExport:
    shown = ", ".join(foreign[:8]) + (f" and {len(foreign) - 8} more" if foreign[8:] else "")
    return CannotExport(
        f"cannot load {path.name} safely: it is a pickle, which runs code when it is loaded; "
        f"this one would import {shown}",
        hint=f"{_BUILD}. If the file is your own, --trust loads it and runs that code",
        imports=", ".join(foreign[:100]),
    )


def _load(path: Path) -> Any:
    import torch

    try:
        loaded = torch.load(str(path), map_location="cpu", weights_only=False)
    except MemoryError:
        raise
    except (ModuleNotFoundError, AttributeError) as exc:
        missing = getattr(exc, "name", "") or str(exc)
        raise CannotExport(
            f"cannot load {path.name}: {exc}; a pickle holds a module by the name of its class",
            hint=f"put the folder of the code that defines it into PYTHONPATH, or {_BUILD}",
            missing=missing,
        ) from exc
    except Exception as exc:
        raise CannotExport(
            f"cannot load {path.name}: {type(exc).__name__}: {str(exc)[:300]}",
            hint=f"here is PyTorch {torch.__version__}; was it saved by another version, or is "
            "the copy cut short?",
            here=str(torch.__version__),
        ) from exc
    if not isinstance(loaded, torch.nn.Module):
        raise CannotExport(
            f"cannot export {path.name}: it holds a {type(loaded).__name__}, no module",
            hint=_BUILD,
        )
    return loaded
