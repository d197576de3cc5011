"""Caps that both ends keep, so that no peer can exhaust the other's memory."""

__all__ = [
    "MAX_AHEAD_BYTES",
    "MAX_BODY_BYTES",
    "MAX_CHUNK_BYTES",
    "MAX_MANIFEST_BYTES",
    "MAX_META_BYTES",
    "MAX_PACK_SAMPLES",
    "MAX_SAMPLES",
    "MAX_TENSOR_BYTES",
    "MAX_TOP",
]

#: The JSON part of one frame.
MAX_META_BYTES = 1 << 20
#: The bytes part of one frame.
MAX_BODY_BYTES = 64 << 20
#: One piece of a blob that is being pushed.
MAX_CHUNK_BYTES = 1 << 20
#: The canonical manifest of a bundle.
MAX_MANIFEST_BYTES = 8 << 20
#: All tensors of one inference, inputs or outputs.
MAX_TENSOR_BYTES = 64 << 20
#: Counted runs of one ``bench``: eight bytes each fit one reply, and one report file.
MAX_SAMPLES = 4_000_000
#: Samples that one ``evaluate`` takes, and how many of the largest outputs it can name of each.
MAX_PACK_SAMPLES = 4096
MAX_TOP = 64
#: Chunks that came over one lane before others in front of them, kept in the agent's memory.
MAX_AHEAD_BYTES = 16 << 20
