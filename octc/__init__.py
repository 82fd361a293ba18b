"""octc: small classifiers of retinal OCT, with evidence that they are as good as the large ones.

    import octc

    model = octc.load("runs/r-0002-student-ucsd/artifacts/onnx-int8")
    model.predict(["a.png"])[0].label
    octc.compare(truth, before, after, patients=ids, margin=2)
    octc.verify("runs/r-0002-student-ucsd/artifacts/onnx-int8").word

Names are imported when they are asked for: `import octc` itself loads neither numpy nor an engine.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from octc.core.telemetry import keep_quiet

if TYPE_CHECKING:
    from octc.bench.parity.job import VerifyOptions as VerifyOptions
    from octc.bench.parity.result import VerifyResult as VerifyResult
    from octc.bench.parity.verify import verify_artifact as verify
    from octc.bench.report.job import report_run as report
    from octc.bench.timing.job import BenchResult as BenchResult
    from octc.bench.timing.job import bench_artifacts as bench
    from octc.compress.jobs import train_network as train
    from octc.core.errors import OctcError as OctcError
    from octc.core.import_options import ImportOptions as ImportOptions
    from octc.export.imports.importing import Imported as Imported
    from octc.export.imports.importing import import_model as import_model
    from octc.export.own_network import OwnNetwork as OwnNetwork
    from octc.export.own_network import QuantizeOptions as QuantizeOptions
    from octc.export.own_network import quantize_network as quantize
    from octc.export.request import export as export
    from octc.export.run import ExportOptions as ExportOptions
    from octc.imaging.preprocess import Preprocess as Preprocess
    from octc.runtimes.model import Model as Model
    from octc.runtimes.model import Prediction as Prediction
    from octc.runtimes.model import load as load
    from octc.schemas.requests import BenchOptions as BenchOptions
    from octc.schemas.requests import ReportOptions as ReportOptions
    from octc.stats.tables import TableComparison as TableComparison
    from octc.stats.tables import compare_tables as compare
    from octc.stats.test_plan import ParityOptions as Gate

keep_quiet()  # before any dependency is imported, in every program that imports anything of octc

# public name -> module and the name there ("": the package itself, which can be called)
_HOME = {
    "BenchOptions": ("octc.schemas.requests", "BenchOptions"),
    "BenchResult": ("octc.bench.timing.job", "BenchResult"),
    "ReportOptions": ("octc.schemas.requests", "ReportOptions"),
    "VerifyOptions": ("octc.bench.parity.job", "VerifyOptions"),
    "VerifyResult": ("octc.bench.parity.result", "VerifyResult"),
    "bench": ("octc.bench", ""),
    "report": ("octc.bench.report.job", "report_run"),
    "verify": ("octc.bench.parity.verify", "verify_artifact"),
    "ExportOptions": ("octc.export.run", "ExportOptions"),
    "Gate": ("octc.stats.test_plan", "ParityOptions"),
    "ImportOptions": ("octc.core.import_options", "ImportOptions"),
    "Imported": ("octc.export.imports.importing", "Imported"),
    "Model": ("octc.runtimes.model", "Model"),
    "OctcError": ("octc.core.errors", "OctcError"),
    "OwnNetwork": ("octc.export.own_network", "OwnNetwork"),
    "Prediction": ("octc.runtimes.model", "Prediction"),
    "Preprocess": ("octc.imaging.preprocess", "Preprocess"),
    "QuantizeOptions": ("octc.export.own_network", "QuantizeOptions"),
    "TableComparison": ("octc.stats.tables", "TableComparison"),
    "compare": ("octc.stats.tables", "compare_tables"),
    "export": ("octc.export", ""),
    "import_model": ("octc.export.imports.importing", "import_model"),
    "load": ("octc.runtimes.model", "load"),
    "quantize": ("octc.export.own_network", "quantize_network"),
    "train": ("octc.train", ""),
}
__all__ = [
    "BenchOptions",
    "BenchResult",
    "ExportOptions",
    "Gate",
    "ImportOptions",
    "Imported",
    "Model",
    "OctcError",
    "OwnNetwork",
    "Prediction",
    "Preprocess",
    "QuantizeOptions",
    "ReportOptions",
    "TableComparison",
    "VerifyOptions",
    "VerifyResult",
    "bench",
    "compare",
    "export",
    "import_model",
    "load",
    "quantize",
    "report",
    "train",
    "verify",
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
