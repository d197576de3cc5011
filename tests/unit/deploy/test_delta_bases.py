"""Blobs that were deployed are found again, within a budget, and never get in the way."""

from __future__ import annotations

import os
from pathlib import Path

from edgesdk.deploy import Bases
from edgesdk.testing import make_echo_bundle

PART = os.urandom(5000)


def part_of(bundle: object) -> tuple[str, int]:
    record = bundle.manifest["parts"][0]["files"][0]  # type: ignore[attr-defined]  # any bundle
    return record["sha256"], record["bytes"]


def test_what_was_deployed_is_found_after_its_bundle_is_gone(tmp_path: Path) -> None:
    bundle = make_echo_bundle(tmp_path / "b", part=PART)
    Bases(cache=tmp_path / "cache").keep(bundle)
    bundle.blob_path(part_of(bundle)[0]).unlink()
    found = Bases(cache=tmp_path / "cache").find(*part_of(bundle))
    assert found is not None
    assert found.read_bytes() == PART
    assert (tmp_path / "cache").stat().st_mode & 0o777 == 0o700


def test_bundles_in_folders_are_found_where_deploy_puts_them(tmp_path: Path) -> None:
    bundle = make_echo_bundle(tmp_path / "runs" / "today" / "bundle", part=PART)
    found = Bases(folders=[tmp_path / "runs"]).find(*part_of(bundle))
    assert found == bundle.blob_path(part_of(bundle)[0])


def test_a_file_of_another_size_or_kind_is_not_taken(tmp_path: Path) -> None:
    bundle = make_echo_bundle(tmp_path / "runs" / "b", part=PART)
    sha256, size = part_of(bundle)
    bases = Bases(folders=[tmp_path / "runs"])
    assert bases.find(sha256, size + 1) is None
    path = bundle.blob_path(sha256)
    path.rename(tmp_path / "elsewhere")
    path.symlink_to(tmp_path / "elsewhere")
    assert bases.find(sha256, size) is None
    assert bases.find("../" * 3 + "etc/passwd", 100) is None


def test_the_oldest_leave_when_the_budget_is_used_up(tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    bases = Bases(cache=cache, budget_bytes=12_000)
    bundles = [make_echo_bundle(tmp_path / f"b{k}", part=os.urandom(5000)) for k in range(4)]
    for age, bundle in enumerate(reversed(bundles)):
        bases.keep(bundle)
        kept = cache / part_of(bundle)[0]
        os.utime(kept, ns=(10**9 * (100 - age),) * 2)
    bases.keep(bundles[0])
    left = [bases.find(*part_of(bundle)) is not None for bundle in bundles]
    assert left[0]
    assert sum(left) == 2
    assert sum(path.stat().st_size for path in cache.iterdir()) <= 12_000


def test_a_cache_that_cannot_be_written_does_no_harm(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    bundle = make_echo_bundle(tmp_path / "b", part=PART)
    bases = Bases(cache=tmp_path / "file" / "cache")
    bases.keep(bundle)
    assert bases.find(*part_of(bundle)) is None
    bases.drop(part_of(bundle)[0])


def test_a_dropped_blob_is_gone_from_the_cache_only(tmp_path: Path) -> None:
    bundle = make_echo_bundle(tmp_path / "b", part=PART)
    bases = Bases(cache=tmp_path / "cache")
    bases.keep(bundle)
    bases.drop(part_of(bundle)[0])
    assert bases.find(*part_of(bundle)) is None
    assert bundle.blob_path(part_of(bundle)[0]).read_bytes() == PART
