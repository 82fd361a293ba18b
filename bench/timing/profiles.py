"""How long and how often a bench measures: two declared profiles, and what the options of a command make of them.

Method: docs/measurement.md, sections 2, 11 and 12.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from octc.bench.timing.load_generator import Limits

CANDIDATE, REFERENCE = "candidate", "reference"


@dataclass(frozen=True)
class Profile:
    """Minimum of a valid row and of a valid comparison.

    Attributes:
        duration_s, min_queries: a row reaches both (`reference_queries` for the teacher).
        reference_least: queries from which a teacher's row that `max_duration_s` ended is valid all the same.
        pairs: pairs of blocks; a block has `block_s` and `block_calls`, `slow_calls` where a call takes over 200 ms.
        loads: fresh processes that load an artifact. tune_s: length of each short run that chooses the offline batch.
        warm_least, warm_most, warm_s: fewest and most calls of a warm-up, and its seconds. look_s: time between two looks at
            the machine during a row. idle_s: rest before a loop whose energy is read, for the power of a machine that waits.
    """

    name: str
    duration_s: float
    min_queries: int
    reference_queries: int
    reference_least: int
    pairs: int
    block_s: float
    block_calls: int
    slow_calls: int
    loads: int
    tune_s: float
    max_duration_s: float = 600.0
    warm_least: int = 50
    warm_most: int = 500
    warm_s: float = 30.0
    look_s: float = 0.5
    idle_s: float = 10.0


STANDARD = Profile("standard", 60.0, 1024, 1024, 100, pairs=10, block_s=1.0, block_calls=20, slow_calls=5, loads=5, tune_s=2.0)
QUICK = Profile("quick", 10.0, 459, 20, 20, pairs=5, block_s=0.2, block_calls=3, slow_calls=3, loads=2, tune_s=0.5, idle_s=0.0)


@dataclass(frozen=True)
class Options:
    """What a command asks for. None: as the profile says.

    Attributes:
        scenario: "single_stream" or "offline".
        batch: None measures 1 and 8 (single stream) or chooses the best (offline).
        threads, threads_source: for every runtime, and where the number comes from.
        vs: "teacher" or "none".
        images: files of compressed pictures, at least 64, and `images_from` in words.
        gates: "max_p50_ms", "max_p90_ms", "max_p99_ms", "min_images_per_s", "max_mj", "require_speedup" -> limit.
        power: whether energy is wanted. power_csv: readings of a meter. allow_cap: a GPU at its power cap stays VALID.
        origins: option -> where its value comes from.
    """

    profile: Profile
    threads: int
    threads_source: str
    images: tuple[str, ...] = ()
    images_from: str = ""
    scenario: str = "single_stream"
    batch: int | None = None
    duration_s: float | None = None
    min_queries: int | None = None
    max_duration_s: float | None = None
    vs: str = "teacher"
    gates: dict[str, float] = field(default_factory=dict)
    origins: dict[str, str] = field(default_factory=dict)
    seed: int = 0
    power: bool = True
    power_csv: str | None = None
    allow_cap: bool = False

    def limits(self, role: str) -> Limits:
        """When the timed loop of a row ends."""
        profile = self.profile
        queries = profile.reference_queries if role == REFERENCE else profile.min_queries
        return Limits(
            profile.duration_s if self.duration_s is None else self.duration_s,
            queries if self.min_queries is None else self.min_queries,
            profile.max_duration_s if self.max_duration_s is None else self.max_duration_s,
        )


def reaches_minimum(options: Options, role: str, queries: int, wall_s: float) -> bool:
    """Whether a row has what its profile demands, whatever the options lowered.

    Args:
        queries: calls in single stream, images in the offline scenario.
    """
    profile = options.profile
    least = profile.reference_queries if role == REFERENCE else profile.min_queries
    if wall_s < profile.duration_s:
        return False
    ended = wall_s >= options.limits(role).max_duration_s
    return queries >= least or (role == REFERENCE and ended and queries >= profile.reference_least)
