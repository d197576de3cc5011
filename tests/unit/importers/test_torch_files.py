"""What is refused of PyTorch's files before PyTorch is there to load them."""

from __future__ import annotations

import json
import pickle  # noqa: TID251  # these tests write pickles; none is loaded
import zipfile
from collections import OrderedDict
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from edgesdk.importers.frameworks.torch_archive import opened_archive
from edgesdk.importers.frameworks.torch_checkpoint import load_checkpoint
from edgesdk.importers.frameworks.torch_model import export
from edgesdk.importers.frameworks.torch_program import load_program
from edgesdk.importers.frameworks.torch_script import load_script
from edgesdk.importers.job import CannotExport, Job


def write_zip(path: Path, records: dict[str, bytes | str], *, packed: bool = False) -> Path:
    kind = zipfile.ZIP_DEFLATED if packed else zipfile.ZIP_STORED
    with zipfile.ZipFile(path, "w", kind) as archive:
        for name, data in records.items():
            archive.writestr(f"model/{name}", data)
    return path


def job(path: Path, kind: str, **more: Any) -> Job:
    out = path.parent / "out"
    out.mkdir(exist_ok=True)
    return Job(source=path, kind=kind, name=path.stem, out=out, **more)


def test_a_file_that_is_cut_short_says_so(tmp_path: Path) -> None:
    whole = write_zip(tmp_path / "m.pt2", {"models/model.json": b"{}" * 1000})
    whole.write_bytes(whole.read_bytes()[:-30])
    for kind in ("torch-export", "torchscript"):
        with pytest.raises(CannotExport, match=r"cannot read m\.pt2: ") as caught:
            export(job(whole, kind))
        assert "interrupted" in caught.value.hint


def test_records_that_claim_more_than_the_file_has_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "m.pt2"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("model/data.pkl", b"x" * 100)
        archive.infolist()[0].file_size = 1 << 40
    with pytest.raises(CannotExport, match="its records claim"), opened_archive(path):
        pass


def test_a_compressed_bomb_is_refused_unread(tmp_path: Path) -> None:
    path = tmp_path / "bomb.pt2"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        with archive.open("model/code/a.py", "w") as stream:
            for _ in range(300):
                stream.write(bytes(1 << 20))
    assert path.stat().st_size < 1 << 20
    with pytest.raises(CannotExport, match="unpack to"), opened_archive(path):
        pass


def test_a_record_that_is_there_twice_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "m.pt2"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a/data.pkl", b"one")
        archive.writestr("b/data.pkl", b"two")
    with pytest.raises(CannotExport, match=r"data\.pkl is there twice"), opened_archive(path):
        pass


def test_a_spoilt_record_says_which(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "m.pt2", {"code/a.py": b"some text that is here"})
    path.write_bytes(path.read_bytes().replace(b"some text", b"same text"))
    with opened_archive(path) as archive:
        with pytest.raises(CannotExport, match=r"record code/a\.py"):
            archive.read("code/a.py")
        with pytest.raises(CannotExport, match="record nowhere is missing"):
            archive.read("nowhere")


@pytest.mark.parametrize(
    ("records", "seen"),
    [
        ({"archive_format": "pt2"}, "it holds no program"),
        ({"models/other.json": "{}"}, "it has other"),
        ({"serialized_exported_program.json": "{}"}, "PyTorch 2.7 or older"),
        ({"models/model.json": "{"}, "its graph is no JSON"),
        ({"models/model.json": "[" * 100_000}, "its graph is no JSON"),
        ({"models/model.json": "[]"}, "its graph is no JSON object"),
        ({"models/model.json": "{}", "byteorder": "big"}, "the other byte order"),
    ],
)
def test_what_is_no_program_of_ours_says_why(
    tmp_path: Path, records: dict[str, str], seen: str
) -> None:
    path = write_zip(tmp_path / "m.pt2", dict(records))
    with pytest.raises(CannotExport, match=seen):
        load_program(job(path, "torch-export"))


def test_a_poisoned_program_never_reaches_pytorch(tmp_path: Path) -> None:
    node = {"target": "torch.os.system", "inputs": [], "outputs": [], "metadata": {}}
    graph = {"graph_module": {"graph": {"nodes": [node]}}}
    path = write_zip(tmp_path / "m.pt2", {"models/model.json": json.dumps(graph)})
    with pytest.raises(CannotExport, match=r"torch\.os\.system"):
        load_program(job(path, "torch-export"))
    assert not (tmp_path / "out" / "program.pt2").exists()


def script(tmp_path: Path, code: str) -> Path:
    records = {"data.pkl": b"\x80\x02N.", "constants.pkl": b"\x80\x02).", "code/a.py": code}
    return write_zip(tmp_path / "s.pt", dict(records), packed=True)


@pytest.mark.parametrize(
    "code",
    [
        "def forward(self, x: Tensor):\n  torch.save(x, 'f')\n",
        "def __setstate__(self, x: Tensor):\n  return torch.from_file('f', True, 9)\n",
        "def forward(self, x: Tensor):\n  (x).  # a comment\n   save('f')\n",
    ],
)
def test_torchscript_that_names_files_is_refused(tmp_path: Path, code: str) -> None:
    with pytest.raises(CannotExport, match=r"code/a\.py, line [23]") as caught:
        load_script(job(script(tmp_path, code), "torchscript"))
    assert "--trust" in caught.value.hint


def test_torchscript_of_another_library_names_it(tmp_path: Path) -> None:
    code = "def forward(self, x: Tensor):\n  return ops.torchvision.nms(x)\n"
    with pytest.raises(CannotExport, match="torchvision::nms"):
        load_script(job(script(tmp_path, code), "torchscript"))


class _Opens:
    def __reduce__(self) -> Any:
        return open, ("was-run", "w")


def checkpoint(tmp_path: Path, value: Any, *, legacy: bool = False) -> Path:
    path = tmp_path / "c.pt"
    if legacy:
        data = b"".join(pickle.dumps(each, 2) for each in (1, 1001, {}, value, []))
        path.write_bytes(data)
        return path
    return write_zip(path, {"data.pkl": pickle.dumps(value, 2), "version": "3"})


@pytest.mark.parametrize("legacy", [False, True])
def test_weights_have_no_graph(tmp_path: Path, legacy: bool) -> None:
    path = checkpoint(tmp_path, OrderedDict(a=1), legacy=legacy)
    for trust in (False, True):
        with pytest.raises(CannotExport, match="holds weights, and no graph") as caught:
            load_checkpoint(job(path, "torch-checkpoint", trust=trust))
        assert "torch.export.save(" in caught.value.hint
        assert "edgesdk.from_torch" in caught.value.hint


@pytest.mark.parametrize("legacy", [False, True])
def test_a_pickled_object_is_refused_and_what_it_imports_is_named(
    tmp_path: Path, legacy: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = checkpoint(tmp_path, [Fraction(1, 2), _Opens()], legacy=legacy)
    with pytest.raises(CannotExport, match=r"io\.open.*|fractions\.Fraction") as caught:
        load_checkpoint(job(path, "torch-checkpoint"))
    assert "fractions.Fraction" in caught.value.facts["imports"]
    assert "--trust" in caught.value.hint
    assert not (tmp_path / "was-run").exists()


def test_an_unknown_form_is_named(tmp_path: Path) -> None:
    with pytest.raises(CannotExport, match="'torch-other' is no form of PyTorch"):
        export(Job(source=tmp_path, kind="torch-other", name="m", out=tmp_path))
