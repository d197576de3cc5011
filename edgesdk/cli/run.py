"""``edgesdk run``: one inference on a device."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgesdk.cli.deployjob import bundle_inputs, preprocess_of
from edgesdk.cli.devicelink import device_settings, find_device, find_release, open_session
from edgesdk.cli.options import DeviceArgument, FormatOption, InventoryOption
from edgesdk.cli.output import Format, Output
from edgesdk.cli.progress import busy
from edgesdk.errors import DataError, OutputError

if TYPE_CHECKING:
    import numpy as np

    from edgesdk.data.preprocess import Preprocess
    from edgesdk.devices.session import Session
    from edgesdk.tensors import TensorInfo

__all__ = ["app", "self_described", "what_it_takes"]

app = typer.Typer(add_completion=False, rich_markup_mode=None)

#: Outputs with more elements are summed up in JSON; -o has all of them.
_SHOWN_ELEMENTS = 1000
_TOP = 5


@app.command()
def run(
    *,
    device: DeviceArgument = None,
    data: Annotated[
        str,
        typer.Option(
            "--data",
            metavar="DATA",
            help="Inputs: .npz, folder of .npz or images, or module:function.",
        ),
    ],
    index: Annotated[
        int,
        typer.Option("--index", min=0, metavar="N", help="Which sample of the data, from 0."),
    ] = 0,
    release: Annotated[
        str,
        typer.Option(
            "--release", help="current, previous, candidate, or the id of a bundle there."
        ),
    ] = "current",
    bundle: Annotated[
        Path | None,
        typer.Option(
            "--bundle",
            metavar="DIR",
            help="The bundle's folder here: names its inputs and how to make them.",
        ),
    ] = None,
    out_file: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FILE", help="Save the outputs as .npz."),
    ] = None,
    inventory: InventoryOption = None,
    fmt: FormatOption = Format.TEXT,
) -> None:
    """Run one inference on a device.

    The outputs are shown, or saved with --output.
    """
    from edgesdk.deploy.releases import run_on_device

    out = Output("run", fmt)
    settings = device_settings(inventory)
    found = find_device(settings, device)
    with open_session(settings, found) as session:
        chosen = find_release(session, release).bundle
        inputs, preprocess = what_it_takes(session, chosen, bundle)
        arrays = _take_sample(data, inputs, preprocess, index)
        with busy("run"):
            outputs, timing = run_on_device(
                session, chosen, arrays, timeout_s=settings.request_timeout_s
            )
    if out_file is not None:
        _save(out_file, outputs)
        out.note(f"wrote {out_file}")
    out.document(
        {
            "device": found.name,
            "release": release,
            "bundle": {"id": chosen},
            "timing": timing,
            "outputs": [_record(name, array) for name, array in outputs.items()],
        }
    )
    for name, array in outputs.items():
        _show(out, name, array)


def what_it_takes(
    session: Session, release: str, bundle: Path | None
) -> tuple[tuple[TensorInfo, ...] | None, Preprocess | None]:
    """Find what a release takes: from the bundle's folder, else from what the device says."""
    manifest: Mapping[str, object]
    if bundle is not None:
        from edgesdk.bundle.store import read_bundle

        manifest = read_bundle(bundle).manifest
    else:
        found = _release_record(session, release)
        if found is None:
            return None, None
        manifest = found
    return bundle_inputs(manifest.get("inputs")), preprocess_of(manifest)


def _release_record(session: Session, release: str) -> Mapping[str, object] | None:
    listed = session.request("releases").meta.get("releases")
    for record in listed if isinstance(listed, list) else []:
        if isinstance(record, dict) and release in (record.get("slot"), record.get("bundle")):
            return record if isinstance(record.get("inputs"), list) else None
    return None


def _take_sample(
    data: str,
    inputs: tuple[TensorInfo, ...] | None,
    preprocess: Preprocess | None,
    index: int,
) -> Mapping[str, np.ndarray]:
    import itertools

    from edgesdk.data.dataset import open_dataset

    if inputs is None:
        inputs = self_described(data)
    dataset = open_dataset(data, inputs, preprocess=preprocess, limit=index + 1)
    for sample in itertools.islice(dataset.samples(), index, None):
        return sample
    raise DataError(
        f"cannot take sample {index} of {data}: it has {dataset.count} samples",
        hint="samples are counted from 0",
        index=index,
    )


def self_described(data: str) -> tuple[TensorInfo, ...]:
    """Take the arrays of an .npz for inputs of the same name; the device checks them.

    Raises:
        DataError: It is no .npz, which alone says what its arrays are called.
    """
    from edgesdk.data.npz import list_arrays
    from edgesdk.tensors import TensorInfo

    if not data.endswith(".npz"):
        raise DataError(
            f"cannot tell what the release takes: {data} does not name its inputs",
            hint="give the bundle's folder with --bundle, or an .npz with one array per input",
        )
    found = list_arrays(Path(data), skip=frozenset({"labels"}))
    return tuple(
        TensorInfo(name=name, dtype=array.dtype.name, shape=(1, *array.shape[1:]))
        for name, array in found.items()
    )


def _save(path: Path, outputs: Mapping[str, np.ndarray]) -> None:
    import numpy as np

    try:
        with path.open("wb") as stream:
            np.savez(stream, **outputs)  # type: ignore[arg-type]  # numpy's stub says bool
    except OSError as exc:
        raise OutputError(
            f"cannot write {path}: {exc.strerror or exc}",
            hint="is there room, and may you write there?",
            path=str(path),
        ) from exc


def _record(name: str, array: np.ndarray) -> dict[str, object]:
    small = array.size <= _SHOWN_ELEMENTS
    return {
        "name": name,
        "dtype": array.dtype.name,
        "shape": list(array.shape),
        "min": array.min() if array.size else None,
        "max": array.max() if array.size else None,
        "mean": float(array.mean()) if array.size else None,
        "values": array if small else None,
    }


def _show(out: Output, name: str, array: np.ndarray) -> None:
    import numpy as np

    shape = ", ".join(str(extent) for extent in array.shape)
    out.line(f"{name}: {array.dtype.name}[{shape}]")
    if array.size == 0:
        return
    if array.size <= _TOP:
        out.line("  " + ", ".join(f"{value:.6g}" for value in array.ravel().tolist()))
        return
    out.line(f"  from {array.min():.6g} to {array.max():.6g}, mean {array.mean():.6g}")
    if array.ndim == 2:
        best = np.argsort(-array[0].astype(np.float64), kind="stable")[:_TOP]
        shown = ", ".join(f"{index}: {array[0, index]:.6g}" for index in best.tolist())
        out.line(f"  highest: {shown}")
