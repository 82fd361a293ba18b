"""octc: small classifiers of retinal OCT, with evidence that they are as good as the large ones.

    import octc

    model = octc.load("runs/r-0002-student-ucsd/artifacts/onnx-int8")
    model.predict(["a.png"])[0].label
    octc.compare(truth, before, after, patients=ids, margin=2)

Names are imported when they are asked for: `import octc` itself loads neither numpy nor an engine.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from octc.core.telemetry import keep_quiet

if TYPE_CHECKING:
    from octc.compress.jobs import train_network as train
    from octc.core.errors import OctcError as OctcError
    from octc.export.own_network import OwnNetwork as OwnNetwork
    from octc.export.own_network import quantize_network as quantize
    from octc.export.request import export as export
    from octc.export.run import ExportOptions as ExportOptions
    from octc.imaging.preprocess import Preprocess as Preprocess
    from octc.runtimes.model import Model as Model
    from octc.runtimes.model import Prediction as Prediction
    from octc.runtimes.model import load as load
    from octc.stats.tables import TableComparison as TableComparison
    from octc.stats.tables import compare_tables as compare
    from octc.stats.test_plan import ParityOptions as Gate

keep_quiet()  # before any dependency is imported, in every program that imports anything of octc

# public name -> module and the name there ("": the package itself, which can be called)
_HOME = {
    "ExportOptions": ("octc.export.run", "ExportOptions"),
    "Gate": ("octc.stats.test_plan", "ParityOptions"),
    "Model": ("octc.runtimes.model", "Model"),
    "OctcError": ("octc.core.errors", "OctcError"),
    "OwnNetwork": ("octc.export.own_network", "OwnNetwork"),
    "Prediction": ("octc.runtimes.model", "Prediction"),
    "Preprocess": ("octc.imaging.preprocess", "Preprocess"),
    "TableComparison": ("octc.stats.tables", "TableComparison"),
    "compare": ("octc.stats.tables", "compare_tables"),
    "export": ("octc.export", ""),
    "load": ("octc.runtimes.model", "load"),
    "quantize": ("octc.export.own_network", "quantize_network"),
    "train": ("octc.train", ""),
}
__all__ = [
    "ExportOptions",
    "Gate",
    "Model",
    "OctcError",
    "OwnNetwork",
    "Prediction",
    "Preprocess",
    "TableComparison",
    "compare",
    "export",
    "load",
    "quantize",
    "train",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'octc' has no attribute {name!r}")
    module, attribute = _HOME[name]
    home = import_module(module)
    value = getattr(home, attribute) if attribute else home  # a package that can be called
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
