"""What a compiled operator says of itself: read from real files; rubbish is refused."""

from __future__ import annotations

import random
from pathlib import Path

import flatbuffers
import pytest

from edgesdk.backends.edgetpu.package import CompiledPackage, read_package, read_packages
from edgesdk.model import open_tflite
from edgesdk.profiles.compilers import load_compiler_rules

RULES = load_compiler_rules("edgetpu-16")


def program(kind: int, parameters: int, *, token: int = 7) -> bytes:
    """Write one program: its parameters, its kind, and what goes in and out."""
    builder = flatbuffers.Builder(256)
    weights = builder.CreateByteVector(b"\1" * parameters)
    layers = []
    for size in (48, 16):
        builder.StartObject(2)
        builder.PrependInt32Slot(1, size, 0)
        layers.append(builder.EndObject())
    vectors = []
    for layer in layers:
        builder.StartVector(4, 1, 4)
        builder.PrependUOffsetTRelative(layer)
        vectors.append(builder.EndVector())
    builder.StartObject(18)
    builder.PrependUOffsetTRelativeSlot(6, weights, 0)
    builder.PrependUOffsetTRelativeSlot(8, vectors[0], 0)
    builder.PrependUOffsetTRelativeSlot(9, vectors[1], 0)
    builder.PrependInt32Slot(12, 640, 0)
    builder.PrependInt16Slot(13, kind, 0)
    builder.PrependUint64Slot(14, token, 0)
    builder.Finish(builder.EndObject())
    return bytes(builder.Output())


def package(*programs: bytes) -> bytes:
    """Write a package of programs, as it stands in the options of an operator."""
    inner = flatbuffers.Builder(256)
    texts = [inner.CreateString(each) for each in programs]
    inner.StartVector(4, len(texts), 4)
    for text in reversed(texts):
        inner.PrependUOffsetTRelative(text)
    vector = inner.EndVector()
    inner.StartObject(1)
    inner.PrependUOffsetTRelativeSlot(0, vector, 0)
    inner.Finish(inner.EndObject())
    outer = flatbuffers.Builder(256)
    held = outer.CreateByteVector(bytes(inner.Output()))
    version = outer.CreateString("cl/1")
    outer.StartObject(8)
    outer.PrependInt32Slot(0, 14, 0)
    outer.PrependUOffsetTRelativeSlot(1, held, 0)
    outer.PrependUOffsetTRelativeSlot(4, version, 0)
    outer.Finish(outer.EndObject(), file_identifier=b"DWN1")
    return b"1\0004\0\0" + bytes(outer.Output()) + b"the rest of the options"


def test_a_program_and_the_one_that_loads_its_parameters() -> None:
    assert read_package(package(program(2, 5), program(1, 300))) == CompiledPackage(
        runtime=14,
        compiler="cl/1",
        cached_bytes=300,
        streamed_bytes=5,
        program_bytes=0,
        input_bytes=48,
        output_bytes=16,
        tile_bytes=640,
        token=7,
    )


def test_a_program_that_stands_alone_streams_everything() -> None:
    found = read_package(package(program(0, 900)))
    assert found is not None
    assert (found.cached_bytes, found.streamed_bytes) == (0, 900)
    assert found.to_json(1000)["streamed_bytes"] == 900
    assert found.to_json(1000)["provenance"] == "measured"


@pytest.mark.parametrize("options", [b"", b"DWN1", b"\0" * 99, b"\xff" * 4 + b"DWN1" * 9])
def test_rubbish_is_no_package(options: bytes) -> None:
    assert read_package(options) is None


def test_a_package_without_programs_is_none() -> None:
    assert read_package(package()) is None


def test_no_byte_that_changes_makes_it_fall_over() -> None:
    whole = package(program(2, 5), program(1, 300))
    seed = random.Random(4)
    for _ in range(2000):
        broken = bytearray(whole[: seed.randrange(len(whole) + 1)])
        for _ in range(seed.randrange(4)):
            if broken:
                broken[seed.randrange(len(broken))] = seed.randrange(256)
        found = read_package(bytes(broken))
        assert found is None or found.cached_bytes <= len(whole)


@pytest.mark.parametrize(
    ("name", "runtime", "cached", "streamed"),
    [
        # the runtime that each needs, and what it keeps, as its file has them
        ("deeplabv3_mnv2_dm05_pascal_quant", 12, 766_720, 0),
        ("keras_lstm_mnist_ptq", 12, 43_968, 576),
        ("mobilenet_v1_0.25_128_quant", 12, 566_912, 0),
        ("tools_split_concat", 13, 192, 0),
    ],
)
def test_files_that_the_compiler_made(
    shared_assets: Path, name: str, runtime: int, cached: int, streamed: int
) -> None:
    graph = open_tflite(shared_assets / "edgetpu" / f"{name}_edgetpu.tflite").graph
    (found,) = read_packages(graph, RULES)
    assert (found.runtime, found.cached_bytes, found.streamed_bytes) == (
        runtime,
        cached,
        streamed,
    )
