"""A valid bundle that needs no model and no runtime library."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from edgesdk.bundle import Bundle, BundleWriter
from edgesdk.wire.manifest import MANIFEST_SCHEMA

__all__ = ["make_echo_bundle"]


def make_echo_bundle(
    folder: Path,
    *,
    name: str = "echo",
    part: bytes = b"a part that nothing reads",
    vector: bytes = bytes(range(64)),
    expected: bytes | None = None,
    options: Mapping[str, Any] | None = None,
    target: str = "any",
    runtime: str = "echo",
    fallbacks: Sequence[Mapping[str, Any]] = (),
) -> Bundle:
    """Write a bundle whose one part gives its input back, for the agent's ``echo`` runtime.

    Args:
        folder: Where; as for any bundle it must not exist yet.
        name: The bundle's name.
        part: The bytes of the part: its size decides how much a push has to send.
        vector: The check vector, elements of type uint8.
        expected: What the part should answer to it; other bytes make the self-check fail.
        options: For the runtime; it can be told to misbehave.
        target: The name of the target in the manifest.
        runtime: Another one than ``echo``, which then has to be played by somebody.
        fallbacks: What serves where that fails: records of backend, runtime and options.
    """
    answer = vector if expected is None else expected
    value = {"name": "x", "dtype": "uint8", "shape": [len(vector)]}
    output = {"name": "y", "dtype": "uint8", "shape": [len(answer)]}
    spec = {**value, "offset": 0, "nbytes": len(vector)}
    wanted = {**output, "offset": len(vector), "nbytes": len(answer)}
    with BundleWriter(folder) as writer:
        check = {
            "blob": writer.add_bytes(vector + answer),
            "inputs": [spec],
            "expected": [wanted],
            "reference": [wanted],
            "tolerance": [],
        }
        record: dict[str, Any] = {
            "backend": "echo",
            "runtime": runtime,
            "format": "bytes",
            "precision": "fp32",
            "files": [{**writer.add_bytes(part), "role": "model"}],
            "inputs": [value],
            "outputs": [output],
            "options": dict(options or {}),
        }
        if fallbacks:
            record["fallbacks"] = [dict(each) for each in fallbacks]
        return writer.finish(
            {
                "schema": MANIFEST_SCHEMA,
                "name": name,
                "precision": "fp32",
                "target": {"name": target, "digest": "0" * 64},
                "model": {"sha256": hashlib.sha256(part).hexdigest(), "name": name},
                "inputs": [value],
                "outputs": [output],
                "parts": [record],
                "checks": [check],
                "attachments": [],
            }
        )
