"""The closed list of reasons with which an agent refuses a request.

A reply carries ``code`` (one of these), ``detail`` (a sentence) and ``facts`` (values). The
host maps every code to one class of its error tree; a test holds both lists together.
"""

__all__ = [
    "AGENT_BUG",
    "ALL_CODES",
    "BAD_DATA",
    "BAD_DELTA",
    "BAD_HASH",
    "BAD_REQUEST",
    "BUSY",
    "CHECK_FAILED",
    "DISK_ERROR",
    "GAP",
    "NOT_AUTHENTICATED",
    "NOT_FOUND",
    "NOT_TRUSTED",
    "NO_RUNTIME",
    "NO_SPACE",
    "READ_ONLY",
    "TOO_SLOW",
    "UNKNOWN_OP",
    "VERSION",
    "WORKER_DIED",
    "WORKER_FAILED",
    "WORKER_TIMEOUT",
]

#: The request has a missing, wrong or oversized field.
BAD_REQUEST = "bad-request"
#: The agent has no such operation (it is older than the host).
UNKNOWN_OP = "unknown-op"
#: No protocol version in common.
VERSION = "version"
#: Another host or command holds what this request needs.
BUSY = "busy"
#: A chunk does not continue what the device holds; facts: have.
GAP = "gap"
#: The bytes do not hash to the name they came under.
BAD_HASH = "bad-hash"
#: A delta is malformed, or made for another blob or from other bases.
BAD_DELTA = "bad-delta"
#: The device has no such bundle, blob or slot.
NOT_FOUND = "not-found"
#: No room in the state folder; facts: needed_bytes, free_bytes.
NO_SPACE = "no-space"
#: The state folder cannot be written.
READ_ONLY = "read-only"
#: The disk under the state folder fails; facts: errno.
DISK_ERROR = "disk-error"
#: A runtime is not installed for the worker's Python; facts: runtime, python, machine, ...
NO_RUNTIME = "no-runtime"
#: The worker process ended by itself; facts: signal or status, stderr.
WORKER_DIED = "worker-died"
#: The worker took longer than it may and was killed; facts: timeout_s.
WORKER_TIMEOUT = "worker-timeout"
#: The runtime raised an error (a model it cannot load, an input it refuses).
WORKER_FAILED = "worker-failed"
#: Input tensors do not fit the bundle's inputs.
BAD_DATA = "bad-data"
#: A bundle that has not passed its check vectors on this device cannot be activated.
CHECK_FAILED = "check-failed"
#: A bundle whose latency probe on this device is above its bound is not activated; facts:
#: median_us, max_latency_us.
TOO_SLOW = "too-slow"
#: The device demands a signature and this bundle has none that counts; facts: why, bundle.
NOT_TRUSTED = "not-trusted"
#: The device demands that hosts on this line prove that they hold its key.
NOT_AUTHENTICATED = "not-authenticated"
#: An error in the agent itself.
AGENT_BUG = "agent-bug"

ALL_CODES = (
    BAD_REQUEST,
    UNKNOWN_OP,
    VERSION,
    BUSY,
    GAP,
    BAD_HASH,
    BAD_DELTA,
    NOT_FOUND,
    NO_SPACE,
    READ_ONLY,
    DISK_ERROR,
    NO_RUNTIME,
    WORKER_DIED,
    WORKER_TIMEOUT,
    WORKER_FAILED,
    BAD_DATA,
    CHECK_FAILED,
    TOO_SLOW,
    NOT_TRUSTED,
    NOT_AUTHENTICATED,
    AGENT_BUG,
)
