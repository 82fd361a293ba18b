"""The table of processors: who is recognised as what, what is refused, and that the document shows the table."""

from __future__ import annotations

import struct
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from octc.core.errors import OctcError
from octc.core.targets import TARGETS
from octc.machine.cpu import arm_flags, isa_tokens
from octc.runtimes.cpu_families import CPUS, FAMILIES, UNKNOWN, Cell, family_with, lines_of, require_cpu
from octc.runtimes.openvino import require_kernels
from tests.house.tree import ROOT

# flags of /proc/cpuinfo, or hardware capabilities, as real ones report them
CASES = [
    ("x86-amx", "x86_64", "avx2 avx512f avx512bw avx512vl avx512_vnni amx_tile amx_int8"),
    ("x86-vnni", "x86_64", "avx2 avx512f avx512bw avx512vl avx512_vnni avx512_bf16"),
    ("x86-vnni", "x86_64", "avx2 avx_vnni"),
    ("x86", "x86_64", "avx2 fma"),
    ("x86", "x86_64", "sse4_2"),
    ("arm-sme", "aarch64", "asimd asimdhp asimddp sve i8mm bf16 sme"),
    ("arm-i8mm", "aarch64", "asimd asimdhp asimddp sve i8mm bf16"),
    ("arm-dotprod", "aarch64", "asimd asimdhp asimddp"),
    ("arm-nofp16", "aarch64", "fp asimd crc32"),
    (None, "aarch64", ""),
    (None, "riscv64", "imafdc"),
]


@pytest.mark.parametrize(("family", "machine", "flags"), CASES)
def test_a_processor_is_of_one_family(family: str | None, machine: str, flags: str) -> None:
    kind = {"x86_64": "x86", "aarch64": "arm"}.get(machine)
    assert family_with(isa_tokens(flags.split(), machine), kind) == family


@pytest.mark.parametrize(
    ("hwcap", "hwcap2", "expected"),
    [
        (1 << 1, 0, ("asimd",)),
        (1 << 1 | 1 << 10 | 1 << 20, 0, ("asimd", "asimdhp", "asimddp")),
        (
            1 << 1 | 1 << 10 | 1 << 20 | 1 << 22,
            1 << 13 | 1 << 14 | 1 << 23,
            ("asimd", "asimdhp", "asimddp", "sve", "i8mm", "bf16", "sme"),
        ),
    ],
)
def test_an_arm_processor_is_read_from_the_auxiliary_vector(
    tmp_path: Path, hwcap: int, hwcap2: int, expected: tuple[str, ...]
) -> None:
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/self/auxv").write_bytes(struct.pack("=8Q", 6, 4096, 16, hwcap, 26, hwcap2, 0, 0))
    assert arm_flags(tmp_path) == expected
    (tmp_path / "proc/self/auxv").write_bytes(b"cut")
    assert arm_flags(tmp_path) == ()
    assert arm_flags(tmp_path / "nowhere") == ()


def test_every_cell_names_its_measurement_or_is_unknown() -> None:
    for one in FAMILIES.values():
        assert set(one.int8) <= set(TARGETS)
        for cell in one.int8.values():
            assert (cell.runs is None) == (cell.measured == "unknown") == (cell.share == "unknown")
            assert cell.measured == "unknown" or any(word in cell.measured for word in (".py", "docs/"))
    assert set(CPUS["arm-nofp16"]) < set(CPUS["arm"])
    assert all(lines_of(name) for name in FAMILIES)


def test_files_that_do_not_run_there_are_refused_with_what_does(monkeypatch: pytest.MonkeyPatch) -> None:
    for cpu in ("arm", "arm-nofp16"):
        assert require_cpu(cpu, [("onnx", "int8"), ("openvino", "int8"), ("openvino", "fp32")]) == []
    core = FAMILIES["arm-nofp16"]
    cell = Cell(False, "none", "docs/")
    monkeypatch.setitem(FAMILIES, "arm-nofp16", replace(core, int8={**core.int8, "openvino": cell}))
    for cpu in ("arm", "arm-nofp16"):
        with pytest.raises(OctcError, match="openvino INT8 does not run on Arm without f16") as caught:
            require_cpu(cpu, [("onnx", "int8"), ("openvino", "int8")])
        assert caught.value.code == "OCT-E102"
        assert "--target onnx" in caught.value.hint
    assert require_cpu("arm", [("openvino", "fp32")]) == []
    assert require_cpu("arm-nofp16", [("onnx", "int8"), ("litert", "int8")]) == []
    assert require_cpu("x86", [("litert", "int8")]) == []
    amx = FAMILIES["x86-amx"]
    monkeypatch.setitem(FAMILIES, "x86-amx", replace(amx, int8={**amx.int8, "litert": Cell(None, UNKNOWN, UNKNOWN)}))
    assert "not measured on x86 with AMX" in require_cpu("x86", [("litert", "int8")])[0]
    with pytest.raises(OctcError, match="unknown processor") as caught:
        require_cpu("mips", [])
    assert caught.value.code == "OCT-E104"


def table() -> str:
    """The table of docs/edge-cpus.md."""
    head = ["| family | recognised by | boxes | engine | runs | convolutions in INT8 | measured by |", "| --- " * 7 + "|"]
    words = {True: "yes", False: "no", None: "unknown"}
    rows = []
    for name, one in FAMILIES.items():
        signs = ", ".join([*sorted(one.has), *(f"no {token}" for token in sorted(one.lacks))])
        for target, cell in one.int8.items():
            rows.append(
                f"| `{name}` | {signs} | {one.boxes} | {target} | {words[cell.runs]} | {cell.share} | {cell.measured} |"
            )
    return "\n".join([*head, *rows])


def test_the_document_shows_the_table() -> None:
    assert table() in (ROOT / "docs" / "edge-cpus.md").read_text(), (
        "python -c 'from tests.runtimes.test_cpu_families import table; print(table())'"
    )


def node(name: str, kernel: str) -> Any:
    info = {
        "layerType": SimpleNamespace(astype=lambda _: "Convolution"),
        "primitiveType": SimpleNamespace(astype=lambda _: kernel),
    }
    return SimpleNamespace(get_rt_info=lambda: info, get_friendly_name=lambda: name)


def test_a_convolution_in_half_precision_is_refused_by_its_name() -> None:
    """As OpenVINO 2026.4.1 reports Lite0 on Neoverse-N1: the property says f32, the kernel does not."""
    good = SimpleNamespace(get_ops=lambda: [node("stem", "jit_avx512_f32"), node("head", "brgconv_avx512_1x1_i8")])
    require_kernels(good, "openvino-int8")
    bad = SimpleNamespace(get_ops=lambda: [*good.get_ops(), node("blocks.3", "ref_any_f16")])
    with pytest.raises(OctcError, match=r"1 convolutions .* blocks\.3 \(ref_any_f16\)") as caught:
        require_kernels(bad, "openvino-int8")
    assert (caught.value.code, caught.value.place) == ("OCT-E406", "blocks.3")
