"""What a signature on a bundle says: a small canonical JSON document, signed as OpenSSH does.

Two files lie beside ``manifest.json`` in the folder of a signed bundle: ``signed.json``, these
very bytes, and ``signed.json.sig``, what ``ssh-keygen -Y sign -n bundle@edgesdk`` makes of
them. So anybody can sign and check with the tools they have.

The statement names the bundle by its id, which covers every byte that is deployed, and the
artifact by the name in the manifest. ``counter`` orders statements about one name: a device
that demands signatures refuses a lower one than it has settled on. ``made`` is the signer's
clock, in seconds since 1970; a device without a clock learns from it that time has passed.
``downgrade`` is there in a request to go back all the same: it repeats a random number that
the device has given, so it serves once, there.
"""

from __future__ import annotations

import re
from typing import Any, Dict, Optional

from edgesdk.wire.frames import load_json
from edgesdk.wire.manifest import NAME_PATTERN, canonical_bytes, is_sha256

__all__ = [
    "MAX_COUNTER",
    "MAX_SIGNATURE_CHARS",
    "MAX_STATEMENT_CHARS",
    "NAMESPACE",
    "SIGNATURE_FILE",
    "STATEMENT_FILE",
    "STATEMENT_SCHEMA",
    "StatementError",
    "load_statement",
    "statement_bytes",
]

#: The SSHSIG namespace: a signature made for anything else is none for a bundle.
NAMESPACE = "bundle@edgesdk"
STATEMENT_SCHEMA = "edgesdk.signature/1"
STATEMENT_FILE = "signed.json"
SIGNATURE_FILE = "signed.json.sig"
MAX_STATEMENT_CHARS = 1024
#: The largest armored signature, of an RSA key with 16384 bits, has about 6000.
MAX_SIGNATURE_CHARS = 16_384
MAX_COUNTER = (1 << 53) - 1
_MAX_MADE = 1 << 40
_NONCE = re.compile(r"[0-9a-f]{64}\Z")
_FIELDS = {"schema", "bundle", "name", "counter", "made"}


class StatementError(ValueError):
    """A statement is not one."""


def statement_bytes(
    *, bundle: str, name: str, counter: int, made: int, downgrade: Optional[str] = None
) -> bytes:
    """Give the bytes that are signed.

    Raises:
        StatementError: A value is out of its range.
    """
    record = {
        "schema": STATEMENT_SCHEMA,
        "bundle": bundle,
        "name": name,
        "counter": counter,
        "made": made,
    }  # type: Dict[str, Any]
    if downgrade is not None:
        record["downgrade"] = downgrade
    data = canonical_bytes(record)
    load_statement(data)
    return data


def load_statement(data: bytes) -> Dict[str, Any]:
    """Parse and check the bytes of a statement.

    Raises:
        StatementError: Not canonical JSON of this schema, or a field is wrong.
    """
    if len(data) > MAX_STATEMENT_CHARS:
        raise StatementError("it has more than {} bytes".format(MAX_STATEMENT_CHARS))
    try:
        record = load_json(data)
    except ValueError as exc:
        raise StatementError("it is not JSON: {}".format(exc)) from exc
    if not isinstance(record, dict) or record.get("schema") != STATEMENT_SCHEMA:
        raise StatementError("its schema is not {!r}".format(STATEMENT_SCHEMA))
    if set(record) - {"downgrade"} != _FIELDS:
        raise StatementError("it has the fields {}".format(sorted(record))[:300])
    if not is_sha256(record["bundle"]):
        raise StatementError("bundle is {!r}".format(record["bundle"])[:200])
    if not isinstance(record["name"], str) or not NAME_PATTERN.match(record["name"]):
        raise StatementError("name is {!r}".format(record["name"])[:200])
    for field, most in (("counter", MAX_COUNTER), ("made", _MAX_MADE)):
        value = record[field]
        if type(value) is not int or not 0 <= value <= most:
            raise StatementError("{} is {!r}".format(field, value)[:200])
    nonce = record.get("downgrade", "0" * 64)
    if not isinstance(nonce, str) or not _NONCE.match(nonce):
        raise StatementError("downgrade is {!r}".format(nonce)[:200])
    try:
        canonical = canonical_bytes(record)
    except ValueError as exc:  # a lone surrogate, which UTF-8 cannot hold
        raise StatementError("it is not text: {}".format(exc)) from exc
    if canonical != data:
        raise StatementError("it is not in canonical form")
    return record
