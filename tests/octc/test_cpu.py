"""The processor as data, on processors that are written down as the kernel's files."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from octc.machine import cpu as machine_cpu
from octc.machine.cpu import (
    Cpus,
    cpu_class,
    isa_tokens,
    parse_list,
    read_cpus,
    read_cpuset,
    read_flags,
    read_quota,
    read_throttled,
    reading_pool,
    usable_threads,
)  # fmt: skip

SYSTEM = "sys/devices/system/cpu"


def put(root: Path, name: str, text: str) -> None:
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    (root / name).write_text(text)


def threads_of(root: Path, pairs: dict[int, str]) -> None:
    """Logical processors and which of them share a core."""
    put(root, f"{SYSTEM}/online", f"0-{max(pairs)}\n")
    for cpu, siblings in pairs.items():
        put(root, f"{SYSTEM}/cpu{cpu}/topology/thread_siblings_list", siblings + "\n")


@pytest.mark.parametrize(
    ("flags", "machine", "tokens", "kind"),
    [
        ("fpu sse2", "x86_64", (), "x86-baseline"),
        ("fpu avx2 fma", "x86_64", ("avx2",), "x86-avx2"),
        ("avx2 avx_vnni", "x86_64", ("avx2", "vnni"), "x86-vnni"),
        ("avx2 avx512f avx512bw avx512vl", "AMD64", ("avx2", "avx512"), "x86-avx512"),
        ("avx2 avx512f", "x86_64", ("avx2",), "x86-avx2"),  # only a part of what the libraries need
        ("avx2 avx512_vnni amx_tile amx_int8", "x86_64", ("avx2", "vnni", "amx"), "x86-amx"),
        ("fp asimd", "aarch64", ("neon",), "arm-neon"),
        ("fp asimd asimdhp asimddp", "aarch64", ("neon", "neon-fp16", "neon-dotprod"), "arm-dotprod"),
        ("asimd asimddp i8mm sve", "arm64", ("neon", "neon-dotprod", "i8mm", "sve"), "arm-i8mm"),
        ("", "x86_64", ("unknown",), "unknown"),
        ("something", "riscv64", ("unknown",), "unknown"),
    ],
)  # fmt: skip
def test_instruction_sets(flags: str, machine: str, tokens: tuple[str, ...], kind: str) -> None:
    assert isa_tokens(flags.split(), machine) == tokens
    assert cpu_class(tokens, machine) == kind


def test_model_and_flags(tmp_path: Path) -> None:
    put(
        tmp_path,
        "proc/cpuinfo",
        "processor\t: 0\nmodel name\t: A: fast one\nflags\t\t: fpu avx2\n\nprocessor : 1\nflags : other\n",
    )
    assert read_flags(tmp_path) == ("A: fast one", ("fpu", "avx2"))
    put(tmp_path, "proc/cpuinfo", "processor : 0\nFeatures : fp asimd\nHardware : Board\n")
    assert read_flags(tmp_path) == ("Board", ("fp", "asimd"))
    assert read_flags(tmp_path / "none")[1] == ()


def test_lists_of_the_kernel() -> None:
    assert parse_list("0-3,8\n") == (0, 1, 2, 3, 8)
    assert parse_list("5") == (5,)
    assert parse_list("") == ()


def test_threads_of_a_core_are_told_from_cores(tmp_path: Path) -> None:
    threads_of(tmp_path, {0: "0,2", 1: "1,3", 2: "0,2", 3: "1,3"})
    cpus = read_cpus(tmp_path, affinity=[0, 1, 2, 3])
    assert (len(cpus.logical), cpus.physical, cpus.smt) == (4, 2, True)
    assert usable_threads(cpus) == (2, "physical_cores")


def test_without_topology_every_processor_is_a_core(tmp_path: Path) -> None:
    cpus = read_cpus(tmp_path, affinity=[0, 1, 2])
    assert (cpus.logical, cpus.physical, cpus.smt, cpus.quota, cpus.cpuset) == ((0, 1, 2), 3, False, None, None)


def test_r05_an_affinity_mask_counts_cores_and_is_said(tmp_path: Path) -> None:
    threads_of(tmp_path, {0: "0,2", 1: "1,3", 2: "0,2", 3: "1,3"})
    assert usable_threads(read_cpus(tmp_path, affinity=[0, 2])) == (1, "affinity")
    assert usable_threads(read_cpus(tmp_path, affinity=[0, 1])) == (2, "physical_cores")


@pytest.mark.parametrize(
    ("quota", "threads"),
    [(0.5, (1, "quota")), (1.5, (1, "quota")), (2.0, (2, "quota")), (3.9, (3, "quota")), (4.0, (4, "physical_cores")),
     (None, (4, "physical_cores"))],
)  # fmt: skip
def test_r05_a_quota_limits_threads_and_half_a_processor_gets_one(quota: float | None, threads: tuple[int, str]) -> None:
    cpus = Cpus(tuple(range(4)), tuple(range(4)), None, {cpu: str(cpu) for cpu in range(4)}, None, quota)
    assert usable_threads(cpus) == threads


def test_r05_a_cpuset_counts_with_the_mask(tmp_path: Path) -> None:
    put(tmp_path, "proc/self/cgroup", "0::/box/inner\n")
    put(tmp_path, "sys/fs/cgroup/box/cpuset.cpus.effective", "1-2\n")
    (tmp_path / "sys/fs/cgroup/box/inner").mkdir()
    assert read_cpuset(tmp_path) == (1, 2)
    cpus = read_cpus(tmp_path, affinity=[0, 1, 2, 3])
    assert cpus.usable == (1, 2)
    assert usable_threads(cpus) == (2, "affinity")


def test_quota_of_version_2_is_the_tightest_of_the_group_and_its_parents(tmp_path: Path) -> None:
    put(tmp_path, "proc/self/cgroup", "0::/box/inner\n")
    put(tmp_path, "sys/fs/cgroup/box/cpu.max", "50000 100000\n")
    put(tmp_path, "sys/fs/cgroup/box/inner/cpu.max", "max 100000\n")
    put(tmp_path, "sys/fs/cgroup/box/inner/cpu.stat", "usage_usec 5\nnr_periods 9\nnr_throttled 4\n")
    assert read_quota(tmp_path) == 0.5
    assert read_throttled(tmp_path) == 4
    put(tmp_path, "sys/fs/cgroup/box/inner/cpu.max", "30000 100000\n")
    assert read_quota(tmp_path) == 0.3


def test_quota_of_version_1(tmp_path: Path) -> None:
    put(tmp_path, "proc/self/cgroup", "4:memory:/a\n3:cpu,cpuacct:/a\n")
    put(tmp_path, "sys/fs/cgroup/cpu,cpuacct/a/cpu.cfs_quota_us", "150000\n")
    put(tmp_path, "sys/fs/cgroup/cpu,cpuacct/a/cpu.cfs_period_us", "100000\n")
    assert read_quota(tmp_path) == 1.5
    put(tmp_path, "sys/fs/cgroup/cpu,cpuacct/a/cpu.cfs_quota_us", "-1\n")
    assert read_quota(tmp_path) is None
    assert read_throttled(tmp_path) is None


def test_performance_cores_of_a_hybrid_processor(tmp_path: Path) -> None:
    threads_of(tmp_path, {0: "0-1", 1: "0-1", 2: "2", 3: "3"})
    put(tmp_path, "sys/devices/cpu_core/cpus", "0-1\n")
    cpus = read_cpus(tmp_path, affinity=[0, 1, 2, 3])
    assert cpus.fast == (0, 1)
    assert usable_threads(cpus)[0] == 1
    assert usable_threads(read_cpus(tmp_path, affinity=[2, 3]))[0] == 2  # none of the fast ones may be used


def test_performance_cores_on_arm_are_those_of_the_highest_capacity(tmp_path: Path) -> None:
    put(tmp_path, f"{SYSTEM}/online", "0-2\n")
    for cpu, capacity in enumerate((430, 1024, 1024)):
        put(tmp_path, f"{SYSTEM}/cpu{cpu}/cpu_capacity", f"{capacity}\n")
    assert read_cpus(tmp_path, affinity=[0, 1, 2]).fast == (1, 2)
    put(tmp_path, f"{SYSTEM}/cpu0/cpu_capacity", "1024\n")
    assert read_cpus(tmp_path, affinity=[0, 1, 2]).fast is None


def test_this_machine_and_a_real_mask() -> None:
    before = os.sched_getaffinity(0)
    cpus = read_cpus()
    assert set(cpus.affinity) == before
    assert 1 <= cpus.physical <= len(cpus.logical)
    assert usable_threads()[0] >= 1
    try:
        os.sched_setaffinity(0, {min(before)})
        assert read_cpus().usable == (min(before),)
        assert usable_threads()[0] == 1
    finally:
        os.sched_setaffinity(0, before)


def test_a_container_quota_counts_for_threads_that_read_files(monkeypatch: pytest.MonkeyPatch) -> None:
    cores = Cpus(tuple(range(8)), tuple(range(8)), None, {one: str(one) for one in range(8)}, None, 3.5)
    for quota, expected in ((3.5, 3), (0.5, 2), (None, 8)):
        monkeypatch.setattr(machine_cpu, "read_cpus", lambda quota=quota: replace(cores, quota=quota))
        with reading_pool() as pool:
            assert pool._max_workers == expected
