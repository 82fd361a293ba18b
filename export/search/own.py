"""Failures that are one candidate's own: it is left out with its reason, and the others go on.

What every candidate would meet ends the work: a full disk, another machine that is gone, a GPU that is lost, a wrong request.
"""

from __future__ import annotations

from octc.core.errors import OctcError, first_line
from octc.core.faults import of_machine, out_of_memory

# of its training: not finite, short of memory, a data worker killed for it, no such network, no start weights
TRAINING = ("OCT-E301", "OCT-E302", "OCT-E303", "OCT-E307", "OCT-E310")
# of its tuning and its files: the exporter, the engine's builder, the gate, golden images, numbers that are not finite
FILES = (*(f"OCT-E{number}" for number in range(402, 409)), "OCT-E504", "OCT-E506", "OCT-E701")
LOST = ("OCT-E304", "OCT-E305")  # the GPU, another process: nothing of any network


def own_failure(error: Exception) -> str | None:
    """Why a candidate is left out after an exception; None: it is not its own, or a mistake in octc."""
    if out_of_memory(error):
        return _words(error) if isinstance(error, OctcError) else "OCT-E302: memory is exhausted"
    if of_machine(error) is not None or not isinstance(error, OctcError):
        return None
    return _words(error) if error.code in (*TRAINING, *FILES) else None


def network_failure(error: Exception) -> str | None:
    """`own_failure` where the network of a candidate is tried for the first time: whatever it raises, which may be any network
    of timm, and whatever an exporter says of it, is its own too."""
    if (why := own_failure(error)) is not None:
        return why
    if of_machine(error) is not None or (isinstance(error, OctcError) and error.code in LOST):
        return None
    return _words(error) if isinstance(error, OctcError) else f"{type(error).__name__}: {first_line(error)}"


def _words(error: OctcError) -> str:
    return f"{error.code}: {error.message}"
