"""octc: small classifiers of retinal OCT, with evidence that they are as good as the large ones.

    import octc

    model = octc.load("runs/r-0002-student-ucsd/artifacts/onnx-int8")
    model.predict(["a.png"])[0].label
    octc.compare(truth, before, after, patients=ids, margin=2)
    octc.verify("runs/r-0002-student-ucsd/artifacts/onnx-int8").word

Each name is imported on first use: `import octc` itself loads neither numpy nor an engine. docs/python.md pairs every command
with its function; `help(octc.verify)` and the like give arguments, units, errors and an example.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from octc.core.telemetry import keep_quiet

if TYPE_CHECKING:
    from octc.archive.job import ArchiveOptions as ArchiveOptions
    from octc.archive.job import ArchiveResult as ArchiveResult
    from octc.archive.job import predict_archive as predict_archive
    from octc.bench.monitor.job import MonitorOptions as MonitorOptions
    from octc.bench.monitor.job import monitor_box as monitor
    from octc.bench.parity.result import VerifyResult as VerifyResult
    from octc.bench.parity.tables.compare import TablesCompared as TablesCompared
    from octc.bench.parity.tables.compare import compare_files as compare_files
    from octc.bench.parity.verify import verify_artifact as verify
    from octc.bench.report.choose import choose_artifact as choose
    from octc.bench.report.job import report_run as report
    from octc.bench.timing.job import BenchResult as BenchResult
    from octc.bench.timing.job import bench_artifacts as bench
    from octc.compress.jobs import train_network as train
    from octc.compress.simplify.job import simplify_run as simplify_run
    from octc.compress.simplify.network import Simplification as Simplification
    from octc.compress.simplify.network import SimplifiedNetwork as SimplifiedNetwork
    from octc.compress.simplify.network import rebuild_network as rebuild_simplified
    from octc.compress.simplify.network import simplify_network as simplify
    from octc.core.data_options import DataOptions as DataOptions
    from octc.core.errors import OctcError as OctcError
    from octc.core.import_options import ImportOptions as ImportOptions
    from octc.datasets.jobs import SplitOptions as SplitOptions
    from octc.datasets.jobs import check_data as check_data
    from octc.datasets.jobs import split_data as split_data
    from octc.export.decision import fit_rules as fit_rules
    from octc.export.imports.importing import Imported as Imported
    from octc.export.imports.importing import import_model as import_model
    from octc.export.latency import latency_of as latency_of
    from octc.export.own_network import OwnNetwork as OwnNetwork
    from octc.export.own_network import QuantizeOptions as QuantizeOptions
    from octc.export.own_network import quantize_network as quantize
    from octc.export.reference import fit_reference as fit_reference
    from octc.export.request import export as export
    from octc.export.run import ExportOptions as ExportOptions
    from octc.export.search.job import SearchResult as SearchResult
    from octc.export.search.job import search_student as search
    from octc.imaging.preprocess import Preprocess as Preprocess
    from octc.runtimes.model import Model as Model
    from octc.runtimes.model import Prediction as Prediction
    from octc.runtimes.model import load as load
    from octc.schemas.comparing import TableOptions as TableOptions
    from octc.schemas.requests import BenchOptions as BenchOptions
    from octc.schemas.requests import ReportOptions as ReportOptions
    from octc.schemas.requests import ServeOptions as ServeOptions
    from octc.schemas.rules import PointOptions as PointOptions
    from octc.schemas.rules import SetOptions as SetOptions
    from octc.schemas.search import SearchOptions as SearchOptions
    from octc.schemas.simplifying import SimplifyOptions as SimplifyOptions
    from octc.schemas.verification import VerifyOptions as VerifyOptions
    from octc.serve.server import serve_artifacts as serve
    from octc.stats.tables import TableComparison as TableComparison
    from octc.stats.tables import compare_tables as compare
    from octc.stats.test_plan import ParityOptions as Gate

keep_quiet()  # before any dependency is imported, in every program that imports anything of octc

# public name -> its module, and its name there ("": the package itself, which can be called)
_HOME = {
    "ArchiveOptions": ("octc.archive.job", "ArchiveOptions"),
    "ArchiveResult": ("octc.archive.job", "ArchiveResult"),
    "BenchOptions": ("octc.schemas.requests", "BenchOptions"),
    "BenchResult": ("octc.bench.timing.job", "BenchResult"),
    "DataOptions": ("octc.core.data_options", "DataOptions"),
    "ExportOptions": ("octc.export.run", "ExportOptions"),
    "Gate": ("octc.stats.test_plan", "ParityOptions"),
    "ImportOptions": ("octc.core.import_options", "ImportOptions"),
    "Imported": ("octc.export.imports.importing", "Imported"),
    "Model": ("octc.runtimes.model", "Model"),
    "MonitorOptions": ("octc.bench.monitor.job", "MonitorOptions"),
    "OctcError": ("octc.core.errors", "OctcError"),
    "OwnNetwork": ("octc.export.own_network", "OwnNetwork"),
    "PointOptions": ("octc.schemas.rules", "PointOptions"),
    "Prediction": ("octc.runtimes.model", "Prediction"),
    "Preprocess": ("octc.imaging.preprocess", "Preprocess"),
    "QuantizeOptions": ("octc.export.own_network", "QuantizeOptions"),
    "ReportOptions": ("octc.schemas.requests", "ReportOptions"),
    "SearchOptions": ("octc.schemas.search", "SearchOptions"),
    "SearchResult": ("octc.export.search.job", "SearchResult"),
    "ServeOptions": ("octc.schemas.requests", "ServeOptions"),
    "SetOptions": ("octc.schemas.rules", "SetOptions"),
    "Simplification": ("octc.compress.simplify.network", "Simplification"),
    "SimplifiedNetwork": ("octc.compress.simplify.network", "SimplifiedNetwork"),
    "SimplifyOptions": ("octc.schemas.simplifying", "SimplifyOptions"),
    "SplitOptions": ("octc.datasets.jobs", "SplitOptions"),
    "TableComparison": ("octc.stats.tables", "TableComparison"),
    "TableOptions": ("octc.schemas.comparing", "TableOptions"),
    "TablesCompared": ("octc.bench.parity.tables.compare", "TablesCompared"),
    "VerifyOptions": ("octc.schemas.verification", "VerifyOptions"),
    "VerifyResult": ("octc.bench.parity.result", "VerifyResult"),
    "bench": ("octc.bench", ""),
    "check_data": ("octc.datasets.jobs", "check_data"),
    "choose": ("octc.bench.report.choose", "choose_artifact"),
    "compare": ("octc.stats.tables", "compare_tables"),
    "compare_files": ("octc.bench.parity.tables.compare", "compare_files"),
    "export": ("octc.export", ""),
    "fit_reference": ("octc.export.reference", "fit_reference"),
    "fit_rules": ("octc.export.decision", "fit_rules"),
    "import_model": ("octc.export.imports.importing", "import_model"),
    "latency_of": ("octc.export.latency", "latency_of"),
    "load": ("octc.runtimes.model", "load"),
    "monitor": ("octc.bench.monitor.job", "monitor_box"),
    "predict_archive": ("octc.archive.job", "predict_archive"),
    "quantize": ("octc.export.own_network", "quantize_network"),
    "rebuild_simplified": ("octc.compress.simplify.network", "rebuild_network"),
    "report": ("octc.bench.report.job", "report_run"),
    "search": ("octc.export.search.job", "search_student"),
    "serve": ("octc.serve", ""),
    "simplify": ("octc.compress.simplify.network", "simplify_network"),
    "simplify_run": ("octc.compress.simplify.job", "simplify_run"),
    "split_data": ("octc.datasets.jobs", "split_data"),
    "train": ("octc.train", ""),
    "verify": ("octc.bench.parity.verify", "verify_artifact"),
}
__all__ = [  # written out: type checkers and linters read it
    "ArchiveOptions",
    "ArchiveResult",
    "BenchOptions",
    "BenchResult",
    "DataOptions",
    "ExportOptions",
    "Gate",
    "ImportOptions",
    "Imported",
    "Model",
    "MonitorOptions",
    "OctcError",
    "OwnNetwork",
    "PointOptions",
    "Prediction",
    "Preprocess",
    "QuantizeOptions",
    "ReportOptions",
    "SearchOptions",
    "SearchResult",
    "ServeOptions",
    "SetOptions",
    "Simplification",
    "SimplifiedNetwork",
    "SimplifyOptions",
    "SplitOptions",
    "TableComparison",
    "TableOptions",
    "TablesCompared",
    "VerifyOptions",
    "VerifyResult",
    "bench",
    "check_data",
    "choose",
    "compare",
    "compare_files",
    "export",
    "fit_reference",
    "fit_rules",
    "import_model",
    "latency_of",
    "load",
    "monitor",
    "predict_archive",
    "quantize",
    "rebuild_simplified",
    "report",
    "search",
    "serve",
    "simplify",
    "simplify_run",
    "split_data",
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
    return __all__
