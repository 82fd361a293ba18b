"""Durations and repetitions of a bench: two fixed profiles, and the command's options on top of them.

Method: docs/measurement.md, sections 2, 11 and 12.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from octc.bench.timing.load_generator import Limits

CANDIDATE, REFERENCE = "candidate", "reference"


@dataclass(frozen=True)
class Profile:
    """Minimum requirements of a valid row and of a valid comparison.

    Attributes:
        duration_s, min_queries: minimum of a row; both must be reached (`reference_queries` for the teacher).
        reference_least: minimum queries of a teacher's row that ended at `max_duration_s`.
        pairs: number of pairs of blocks; a block has at least `block_s` seconds and `block_calls` calls (`slow_calls` if a
            call takes over 200 ms).
        loads: number of processes that load an artifact. tune_s: duration of each short run for choosing the offline batch.
        warm_least, warm_most, warm_s: minimum and maximum calls of a warm-up, and its seconds. look_s: interval between
            snapshots of the machine during a row, seconds. idle_s: rest before a loop with energy readings, for idle power.
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
    """Checked options of a bench. None: the value of the profile.

    Attributes:
        scenario: "single_stream" or "offline".
        batch: None: 1 and 8 (single stream), or the best (offline).
        threads, threads_source: threads of every engine, and the origin of the number.
        vs: "teacher" or "none".
        images: at least 64 compressed image files; images_from: their source as text.
        gates: "max_p50_ms", "max_p90_ms", "max_p99_ms", "min_images_per_s", "max_mj", "require_speedup" -> limit.
        power: whether to measure energy. power_csv: readings of a meter. allow_cap: rows at the GPU's power cap stay VALID.
        origins: option -> origin of its value.
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
        """The limits of a row's timed loop."""
        profile = self.profile
        queries = profile.reference_queries if role == REFERENCE else profile.min_queries
        return Limits(
            profile.duration_s if self.duration_s is None else self.duration_s,
            queries if self.min_queries is None else self.min_queries,
            profile.max_duration_s if self.max_duration_s is None else self.max_duration_s,
        )


def reaches_minimum(options: Options, role: str, queries: int, wall_s: float) -> bool:
    """Whether a row meets the minimum of its profile, even if the options lowered it.

    Args:
        queries: number of calls (single stream) or images (offline).
    """
    profile = options.profile
    least = profile.reference_queries if role == REFERENCE else profile.min_queries
    if wall_s < profile.duration_s:
        return False
    ended = wall_s >= options.limits(role).max_duration_s
    return queries >= least or (role == REFERENCE and ended and queries >= profile.reference_least)
