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

if TYPE_CHECKING:
    from octc.core.errors import OctcError as OctcError
    from octc.imaging.preprocess import Preprocess as Preprocess
    from octc.runtimes.model import Model as Model
    from octc.runtimes.model import Prediction as Prediction
    from octc.runtimes.model import load as load
    from octc.stats.tables import TableComparison as TableComparison
    from octc.stats.tables import compare_tables as compare

# public name -> module and the name there; every name of `__all__`, and nothing else, is public
_HOME = {
    "Model": ("octc.runtimes.model", "Model"),
    "OctcError": ("octc.core.errors", "OctcError"),
    "Prediction": ("octc.runtimes.model", "Prediction"),
    "Preprocess": ("octc.imaging.preprocess", "Preprocess"),
    "TableComparison": ("octc.stats.tables", "TableComparison"),
    "compare": ("octc.stats.tables", "compare_tables"),
    "load": ("octc.runtimes.model", "load"),
}
__all__ = ["Model", "OctcError", "Prediction", "Preprocess", "TableComparison", "compare", "load"]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'octc' has no attribute {name!r}")
    module, attribute = _HOME[name]
    value = getattr(import_module(module), attribute)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
