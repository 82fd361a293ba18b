"""Optional dependencies: imported late, and absent ones named with their pip line."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from octc.core.errors import MissingExtra
from octc.core.optional import EXTRAS, have, need


def test_what_is_installed_is_imported_and_found() -> None:
    assert need("onnxruntime").__name__ == "onnxruntime"
    assert need("onnxruntime.capi").__name__ == "onnxruntime.capi"
    assert have("onnxruntime")


@pytest.mark.parametrize("module", EXTRAS)
def test_what_is_absent_names_its_extra(module: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.split(".")[0] == module]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "path", [])
    monkeypatch.setattr(sys, "path_importer_cache", {})
    monkeypatch.setattr(sys, "meta_path", [finder for finder in sys.meta_path if "editable" not in str(finder).lower()])
    assert not have(module)
    with pytest.raises(MissingExtra) as caught:
        need(module)
    assert caught.value.hint == f"pip install 'octc[{EXTRAS[module]}]'"
    assert module in caught.value.message


FIRST_USE = """
import threading
import numpy as np
from octc.core.optional import openvino_core
found, gate = [], threading.Barrier(8)
def work():
    gate.wait()
    core = openvino_core()
    import openvino
    found.append((id(core), int(openvino.Tensor(np.ones(3, np.uint8)).data.sum())))
threads = [threading.Thread(target=work) for _ in range(8)]
for thread in threads: thread.start()
for thread in threads: thread.join()
print(len(found), len(set(found)), {total for _, total in found})
"""


def test_threads_that_use_openvino_first_share_one_core_and_end() -> None:
    done = subprocess.run([sys.executable, "-c", FIRST_USE], capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout.strip() == "8 1 {3}", done.stderr


def test_looking_does_not_import(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "loud_package.py").write_text("raise RuntimeError('imported')\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert have("loud_package")


def test_a_module_that_misses_something_itself_is_not_called_absent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "openvino.py").write_text("import a_library_of_openvino\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "openvino", raising=False)
    with pytest.raises(ModuleNotFoundError, match="a_library_of_openvino"):
        need("openvino")


def test_a_module_that_is_set_to_nothing_is_absent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "yaml", None)
    assert not have("yaml")
