"""A bundle folder: written whole, read with suspicion, verified by hash, exported."""

from __future__ import annotations

import errno
import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from edgesdk.bundle import (
    Bundle,
    BundleWriter,
    export_bundle,
    is_bundle_folder,
    read_bundle,
    verify_bundle,
)
from edgesdk.errors import BundleError, OutputError
from edgesdk.tensors import pack_tensors
from edgesdk.wire.manifest import MANIFEST_SCHEMA, canonical_bytes


def manifest_of(writer: BundleWriter, model: bytes = b"weights") -> dict[str, Any]:
    import numpy as np

    specs, body = pack_tensors({"x": np.arange(4, dtype=np.uint8)})
    value = {"name": "x", "dtype": "uint8", "shape": [4]}
    return {
        "schema": MANIFEST_SCHEMA,
        "name": "sample",
        "precision": "fp32",
        "model": {"name": "sample"},
        "target": {"name": "any"},
        "inputs": [value],
        "outputs": [value],
        "preprocess": {"resize": [8, 8]},
        "parts": [
            {
                "index": 0,
                "backend": "echo",
                "runtime": "echo",
                "format": "bytes",
                "precision": "fp32",
                "files": [{"role": "model", "name": "part-0.bin", **writer.add_bytes(model)}],
                "inputs": [value],
                "outputs": [value],
                "options": {},
            }
        ],
        "checks": [
            {
                "blob": writer.add_bytes(body),
                "inputs": specs,
                "expected": specs,
                "reference": [],
                "tolerance": [{"output": "x", "abs": 0.0, "rel": 0.0}],
            }
        ],
        "attachments": [{"role": "plan", **writer.add_bytes(b'{"nodes":[]}')}],
    }


def write(out: Path, model: bytes = b"weights") -> Bundle:
    with BundleWriter(out) as writer:
        return writer.finish(manifest_of(writer, model))


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return write(tmp_path / "bundle")


def blob(bundle: Bundle) -> Path:
    return bundle.blob_path(bundle.manifest["parts"][0]["files"][0]["sha256"])


def test_what_was_written_can_be_read_and_verified(bundle: Bundle) -> None:
    again = read_bundle(bundle.folder)
    assert again.id == bundle.id
    assert verify_bundle(again) == len(b"weights") + 4 + len(b'{"nodes":[]}')
    assert again.attachment("plan") == b'{"nodes":[]}'
    assert again.attachment("absent") is None
    assert again.part_bytes == len(b"weights")


def test_the_same_content_has_the_same_id_and_other_content_another(tmp_path: Path) -> None:
    first, second = write(tmp_path / "a"), write(tmp_path / "b")
    assert first.id == second.id
    assert write(tmp_path / "c", b"other").id != first.id


def test_a_bundle_that_was_there_is_replaced_as_a_whole(bundle: Bundle) -> None:
    replaced = write(bundle.folder, b"new weights")
    assert replaced.id != bundle.id
    assert verify_bundle(read_bundle(bundle.folder)) > 0
    assert [path.name for path in bundle.folder.parent.iterdir()] == ["bundle"]


def test_a_build_that_fails_leaves_nothing_behind(tmp_path: Path) -> None:
    def fail() -> None:
        with BundleWriter(tmp_path / "out") as writer:
            writer.add_bytes(b"half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_no_bundle_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(OutputError, match="it exists and is not a bundle"):
        BundleWriter(tmp_path)
    assert (tmp_path / "thesis.tex").read_text() == "years of work"


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda b: blob(b).unlink(), "is missing"),
        (lambda b: blob(b).write_bytes(b"short"), r"has 5 bytes \(expected 7\)"),
        (lambda b: (b.folder / "manifest.json").unlink(), "has no manifest.json"),
        (lambda b: (b.folder / "manifest.json").write_bytes(b"{"), "not JSON"),
        (
            lambda b: (b.folder / "manifest.json").write_bytes(b"[" * 100_000),
            "nested too deeply",
        ),
        (lambda b: (b.folder / "manifest.json").write_bytes(b"{}"), "its schema is None"),
    ],
)
def test_a_damaged_bundle_is_refused_with_what_is_wrong(
    bundle: Bundle, damage: Any, message: str
) -> None:
    damage(bundle)
    with pytest.raises(BundleError, match=message) as caught:
        read_bundle(bundle.folder)
    assert caught.value.hint
    assert caught.value.exit_code == 2


def test_altered_bytes_of_the_right_size_are_found_by_verifying(bundle: Bundle) -> None:
    blob(bundle).write_bytes(b"WEIGHTS")
    with pytest.raises(BundleError, match="holds bytes with the hash"):
        verify_bundle(read_bundle(bundle.folder))


def test_an_edited_manifest_is_another_bundle_or_none(bundle: Bundle) -> None:
    path = bundle.folder / "manifest.json"
    manifest = json.loads(path.read_bytes())
    manifest["name"] = "other"
    path.write_bytes(json.dumps(manifest, indent=1).encode())
    with pytest.raises(BundleError, match="not in canonical form"):
        read_bundle(bundle.folder)
    path.write_bytes(canonical_bytes(manifest))
    assert read_bundle(bundle.folder).id != bundle.id


@pytest.mark.parametrize(
    "name", ["../x", "/abs", "", ".", "..", "a\0b", "-rf", "a" * 129, "a/b"]
)
def test_a_name_that_could_be_a_path_or_an_option_is_refused(bundle: Bundle, name: str) -> None:
    path = bundle.folder / "manifest.json"
    manifest = json.loads(path.read_bytes()) | {"name": name}
    path.write_bytes(canonical_bytes(manifest))
    with pytest.raises(BundleError, match="its name is"):
        read_bundle(bundle.folder)


@pytest.mark.parametrize("sha256", ["../../etc/passwd", "A" * 64, "a" * 63, "", "g" * 64])
def test_a_blob_name_that_is_no_hash_is_refused(bundle: Bundle, sha256: str) -> None:
    path = bundle.folder / "manifest.json"
    manifest = json.loads(path.read_bytes())
    manifest["parts"][0]["files"][0]["sha256"] = sha256
    path.write_bytes(canonical_bytes(manifest))
    with pytest.raises(BundleError, match=r"parts\[0\].files\[0\].sha256 is"):
        read_bundle(bundle.folder)


def test_links_in_a_bundle_are_not_followed(bundle: Bundle, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(b"weights")
    blob(bundle).unlink()
    blob(bundle).symlink_to(secret)
    with pytest.raises(BundleError, match="is not a plain file"):
        read_bundle(bundle.folder)


def test_a_manifest_that_is_a_pipe_does_not_hang(bundle: Bundle) -> None:
    (bundle.folder / "manifest.json").unlink()
    os.mkfifo(bundle.folder / "manifest.json")
    with pytest.raises(BundleError, match="not a plain file"):
        read_bundle(bundle.folder)


def test_an_archive_is_named_as_what_it_is_not(bundle: Bundle, tmp_path: Path) -> None:
    archive = shutil.make_archive(str(tmp_path / "packed"), "zip", bundle.folder)
    with pytest.raises(BundleError, match="a file, not a folder"):
        read_bundle(Path(archive))
    with pytest.raises(BundleError, match="no such folder"):
        read_bundle(tmp_path / "absent")
    assert not is_bundle_folder(tmp_path)


def test_an_export_has_telling_names_and_says_how_to_feed_it(
    bundle: Bundle, tmp_path: Path
) -> None:
    out = tmp_path / "export"
    written = export_bundle(bundle, out)
    assert [path.name for path in written] == [
        "sample.fp32.bin",
        "HOW-TO-USE.md",
        "preprocess.json",
    ]
    assert (out / "sample.fp32.bin").read_bytes() == b"weights"
    assert bundle.id in (out / "HOW-TO-USE.md").read_text()
    assert json.loads((out / "preprocess.json").read_text()) == {"resize": [8, 8]}
    with pytest.raises(OutputError, match="not an empty folder"):
        export_bundle(bundle, out)


def test_a_damaged_bundle_is_not_exported(bundle: Bundle, tmp_path: Path) -> None:
    blob(bundle).write_bytes(b"WEIGHTS")
    with pytest.raises(BundleError, match="cannot trust"):
        export_bundle(bundle, tmp_path / "export")


@pytest.mark.parametrize("precision", ["x/../../aside/y", "../x", "a\0b", None])
def test_a_precision_that_could_be_a_path_is_refused_and_nothing_written(
    bundle: Bundle, tmp_path: Path, precision: str | None
) -> None:
    (tmp_path / "aside").mkdir()
    path = bundle.folder / "manifest.json"
    manifest = json.loads(path.read_bytes())
    if precision is None:
        del manifest["parts"][0]["precision"]
    else:
        manifest["parts"][0]["precision"] = precision
    path.write_bytes(canonical_bytes(manifest))
    with pytest.raises(BundleError, match=r"precision|has the name"):
        export_bundle(read_bundle(bundle.folder), tmp_path / "export")
    assert list((tmp_path / "aside").iterdir()) == []


def test_an_export_that_fails_leaves_no_landing_file(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(shutil, "copyfileobj", full)
    with pytest.raises(OutputError, match="No space left on device"):
        export_bundle(bundle, tmp_path / "export")
    assert list((tmp_path / "export").iterdir()) == []


def test_a_disk_that_is_full_is_told_as_such(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(b"weights")
    with BundleWriter(tmp_path / "out") as writer:
        manifest = manifest_of(writer)
        shutil.rmtree(writer.folder)
        for write_one in (
            lambda: writer.add_bytes(b"more"),
            lambda: writer.add_file(source),
            lambda: writer.finish(manifest),
        ):
            with pytest.raises(OutputError, match=r"to .*out: No such file"):
                write_one()
