"""What an edited model costs to deploy, against rsync: ``python tests/perf/link_delta.py``.

A device holds a release with a model; the same model with one edit is staged and pushed. Every
byte of that conversation is counted in both directions, frames and the new manifest included.
rsync brings the same file up to date from the same old one, and its count has both directions
too. Sizes do not depend on the machine, so they are held to fixed limits; the one promise about
time is a ratio of two arms in interleaved rounds, with a third arm equal to the first: where
those two disagree the run says nothing.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from edgesdk.bundle import Bundle
from edgesdk.deploy import Bases, deploy_bundle
from edgesdk.deploy.delta import push_with_deltas
from edgesdk.deploy.push import push_blobs, read_missing
from edgesdk.devices import Session, connect, resolve_device
from edgesdk.testing import make_echo_bundle
from edgesdk.wire.frames import FrameReader
from edgesdk.wire.manifest import deployed_blobs

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from tests.perf.delta_edits import EDITS, convolution_net, edited  # noqa: E402 - needs the path

RECOGNISER = "ch_PP-OCRv4_rec_infer.onnx"
#: Two equal arms may differ by so much, as the median of a run.
EQUAL_WITHIN = 0.05


class Counted:
    """A channel that counts what goes over it, in both directions and by operation."""

    def __init__(self, channel: Any, *, compress: bool, bytes_per_s: float | None) -> None:
        self._channel = channel
        self.name, self.notes = channel.name, channel.notes
        self.traits = replace(channel.traits, compress=compress, lane_bytes=0)
        self._bytes_per_s = bytes_per_s
        self._out = FrameReader()
        self.requests: Counter[str] = Counter()
        self.bytes = 0

    def read(self, *, timeout_s: float) -> bytes:
        data: bytes = self._channel.read(timeout_s=timeout_s)
        self.bytes += len(data)
        return data

    def write(self, data: bytes, *, timeout_s: float) -> None:
        begun_s = time.monotonic()
        self.bytes += len(data)
        for frame in self._out.feed(data):
            self.requests[str(frame.meta.get("op"))] += 1
        self._channel.write(data, timeout_s=timeout_s)
        if self._bytes_per_s is not None:
            left_s = len(data) / self._bytes_per_s - (time.monotonic() - begun_s)
            time.sleep(max(0.0, left_s))

    def forget(self) -> None:
        """Count from here on."""
        self.requests.clear()
        self.bytes = 0

    def close(self) -> None:
        self._channel.close()


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """What one edit costs: of the whole conversation, and of it what is payload."""

    both_ways_bytes: int
    payload_bytes: int
    index_bytes: int
    round_trips: int
    seconds: float


class Place:
    """A device on this computer with a release of ``model``, in a folder of its own."""

    def __init__(self, folder: Path, model: bytes) -> None:
        self.folder = folder
        self.model = model
        self._number = 0
        self.held = self.bundle_of(model)
        self._device = resolve_device(f"local:?state={folder / 'state'}")
        with connect(self._device) as session:
            deploy_bundle(self.held, session, device=self._device)

    def bundle_of(self, data: bytes) -> Bundle:
        self._number += 1
        return make_echo_bundle(self.folder / f"bundle-{self._number}", part=data)

    @contextmanager
    def session(
        self, *, compress: bool = False, bytes_per_s: float | None = None
    ) -> Iterator[tuple[Session, Counted]]:
        """Talk to the device over a counted link; ``compress`` says that it is slow."""
        with connect(self._device) as session:
            counted = Counted(session.channel, compress=compress, bytes_per_s=bytes_per_s)
            session.channel = counted
            yield session, counted

    def push(self, bundle: Bundle, bases: Bases | None, **link: Any) -> Cost:
        """Stage a bundle and get its blobs there."""
        with self.session(**link) as (session, counted):
            session.request("gc")  # what an earlier push brought would make this one free
            counted.forget()
            begun_s = time.monotonic()
            meta = _stage(session, bundle)
            missing = read_missing(meta, dict(deployed_blobs(dict(bundle.manifest))))
            if bases is None or not missing:
                pushed = push_blobs(session, bundle, missing)
            else:
                pushed = push_with_deltas(session, bundle, missing, bases)
            return Cost(
                both_ways_bytes=counted.bytes,
                payload_bytes=pushed.bytes_sent,
                index_bytes=sum(delta.index_bytes for delta in pushed.deltas),
                round_trips=counted.requests.total(),
                seconds=time.monotonic() - begun_s,
            )

    def cost(self, edit: str, *, has_base: bool = True, compress: bool = False) -> Cost:
        """What an edit costs where this computer has, or lost, what the device holds."""
        bundle = self.held if edit == "identical" else self.bundle_of(edited(self.model, edit))
        bases = Bases(folders=[self.held.folder] if has_base else [])
        return self.push(bundle, bases, compress=compress)

    def full(self, edit: str) -> Cost:
        """What the same costs without deltas, compressed."""
        return self.push(self.bundle_of(edited(self.model, edit)), None, compress=True)

    def rsync(self, edit: str, *options: str) -> int:
        """What rsync sends and receives for the same file."""
        old, new = self.folder / "rsync-old", self.folder / "rsync-new"
        old.write_bytes(self.model)
        new.write_bytes(edited(self.model, edit))
        done = subprocess.run(
            ["rsync", "--no-whole-file", "--ignore-times", "--stats", *options, new, old],
            check=True,
            capture_output=True,
            text=True,
            env={**os.environ, "LC_ALL": "C"},
        )
        assert old.read_bytes() == new.read_bytes()
        counts = [
            int(line.split(":")[1].replace(",", ""))
            for line in done.stdout.splitlines()
            if line.startswith(("Total bytes sent", "Total bytes received"))
        ]
        assert len(counts) == 2
        return sum(counts)


def _stage(session: Session, bundle: Bundle) -> dict[str, Any]:
    """Ask by name first, as a deployment does."""
    from edgesdk.deploy.deploy import _stage as stage

    wanted = dict(deployed_blobs(dict(bundle.manifest)))
    missing = stage(session, bundle, wanted)
    return {
        "missing": [
            {"sha256": blob.sha256, "bytes": blob.bytes, "have": blob.have} for blob in missing
        ]
    }


def slowdown(place: Place, *, rounds: int = 7, **link: Any) -> tuple[float, float]:
    """How much longer a push of something wholly new takes where deltas are looked for.

    Returns:
        The median over rounds of with / without, and of without / without.
    """
    bases = Bases(folders=[place.held.folder])
    arms: tuple[Bases | None, ...] = (None, bases, None)
    ratios: list[tuple[float, float]] = []
    rng = np.random.default_rng(1)
    for number in range(rounds):
        seconds: dict[int, float] = {}
        for arm in sorted(range(3), key=lambda k: (k + number) % 3):
            size = len(place.model) // 4
            weights = rng.normal(0, 0.05, size).astype("<f4").tobytes()
            bundle = place.bundle_of(weights)
            seconds[arm] = place.push(bundle, arms[arm], **link).seconds
        ratios.append((seconds[1] / seconds[0], seconds[2] / seconds[0]))
    return (
        statistics.median(ratio for ratio, _ in ratios),
        statistics.median(ratio for _, ratio in ratios),
    )


#: A link that may be fast, and a serial line of 2.5 Mbaud, with a model that fits its speed.
LINKS: dict[str, dict[str, Any]] = {
    "local link": {"channels": 192},
    "250 kB/s": {"channels": 64, "compress": True, "bytes_per_s": 250_000},
}


def timed(link: Mapping[str, Any], *, rounds: int) -> tuple[float, float]:
    """Run `slowdown` over one of `LINKS`."""
    options = dict(link)
    model = convolution_net(channels=options.pop("channels"))
    with tempfile.TemporaryDirectory() as folder:
        return slowdown(Place(Path(folder), model), rounds=rounds, **options)


def models(assets: Path | None) -> dict[str, bytes]:
    """The models that are edited: one made here, and the recogniser where it is."""
    import onnx

    found = {"made here": convolution_net()}
    for path in sorted(assets.rglob(RECOGNISER)) if assets is not None else []:
        found["PP-OCRv4 recogniser"] = path.read_bytes()
    # parsed and written once, so that an edit is all that differs
    return {
        name: onnx.load_from_string(data).SerializeToString(deterministic=True)
        for name, data in found.items()
    }


def rows(place: Place) -> Iterator[Sequence[str]]:
    """Give the table's rows for one model."""
    for edit in EDITS:
        cost = place.cost(edit)
        slow = place.cost(edit, compress=True)
        lost = place.cost(edit, has_base=False)
        full = place.full(edit) if edit != "identical" else cost
        yield (
            edit,
            *(f"{each.both_ways_bytes:,}" for each in (cost, slow, lost, full)),
            f"{place.rsync(edit):,}",
            f"{place.rsync(edit, '-z'):,}",
        )


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    rounds = parser.parse_args().rounds
    assets = Path(os.environ.get("EDGESDK_ASSETS", ROOT.parent / "shared" / "assets"))
    heads = ("edit", "delta", "slow link", "base lost", "full, zlib", "rsync", "rsync -z")
    for name, model in models(assets if assets.is_dir() else None).items():
        with tempfile.TemporaryDirectory() as folder:
            place = Place(Path(folder), model)
            print(f"\n{name}, {len(model):,} bytes; bytes both ways, manifest included")
            print("".join(f"{head:>15}" for head in heads))
            for row in rows(place):
                print("".join(f"{cell:>15}" for cell in row), flush=True)
    for text, link in LINKS.items():
        ratio, equal = timed(link, rounds=rounds)
        print(f"\nall new, {text}: {ratio:.3f} of the time without (equal arms: {equal:.3f})")


if __name__ == "__main__":
    if shutil.which("rsync") is None:
        sys.exit("needs rsync: on Debian and Ubuntu, apt-get install rsync")
    main()
