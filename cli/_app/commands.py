"""The table of commands, and what all commands share: options, error boundary, exit code, JSON envelope."""

from __future__ import annotations

import functools
import importlib
import inspect
import json
import logging
import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import MISSING, Field, dataclass, is_dataclass
from pathlib import Path
from types import SimpleNamespace, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import typer

from octc.cli._app.errors import (
    BROKEN_PIPE,
    HUNG_UP,
    INTERRUPTED,
    TERMINATED,
    HungUp,
    Terminated,
    error_json,
    error_text,
    sort_error,
)
from octc.cli._app.session import Session
from octc.cli._app.terminal import ClosedPipe, answer, shown, tell
from octc.core.data_options import WHOSE, DataOptions
from octc.core.deprecated import OldName
from octc.core.errors import OctcError
from octc.core.files import finite
from octc.core.offline import go_offline, refused_attempts
from octc.core.options import (
    CHOICES,
    HELP,
    LEAST,
    METAVAR,
    MOST,
    NAMES,
    PER,
    OneOf,
    described,
    fits_64_bits,
    keys_of,
    typed_number,
)
from octc.schemas.configuration import Settings, bool_of, config_option, read_settings

SCHEMA = "1.0"
DATA_KEYS = keys_of(DataOptions)
ENDED = {INTERRUPTED: "interrupted", TERMINATED: "terminated", HUNG_UP: "hung up"}  # exit code -> message


@dataclass(frozen=True)
class Command:
    """A command: its name, its function (module:function, imported when it is called), one line of help.

    words: name of its only argument, a list that takes all words if no option is given; "" if it has other arguments.
    """

    name: str
    where: str
    help: str
    words: str = ""


GROUPS = {
    "train": "Train a teacher, then its student.",
    "data": "Fetch, check, split and generate data sets; read volumes.",
    "runs": "Runs that were trained on this machine.",
    "artifact": "Sign artifacts, check who signed them, list their licences.",
    "weights": "Convert checkpoints of other programs.",
    "config": "Show, create and check the configuration.",
}
# in the order of the help: from the data to the device
COMMANDS = (
    Command("doctor", "octc.cli.doctor:doctor", "Check what this machine can run, and how to get what is missing."),
    Command("list", "octc.cli.list:list_", "List models, data sets, recipes and runs, with what is missing for each."),
    Command("data list", "octc.cli.data:list_", "List known data sets, and which of them are on this machine."),
    Command("data check", "octc.cli.data:check", "Check a data set for unreadable files, duplicates and leakage."),
    Command("data audit", "octc.cli.data:check", "The same as octc data check."),
    Command(
        "data patients", "octc.cli.data_patients:patients", "Show which patient each image belongs to, by a rule that you give."
    ),
    Command("data fetch", "octc.cli.data_fetch:fetch", "Download a data set, verify its checksum and unpack it."),
    Command("data synthetic", "octc.cli.data:phantom", "Generate synthetic B-scans."),
    Command(
        "data paired-synthetic",
        "octc.cli.data_paired:paired_phantom",
        "Generate synthetic OCT and fundus images of the same eyes.",
    ),
    Command("data volume", "octc.cli.data_volume:volume", "Show the content of a DICOM or vendor volume, with sources."),
    Command("data convert", "octc.cli.data_volume:convert", "Write a volume as OPT DICOM or images, without patient identity."),
    Command(
        "data synthetic-volumes", "octc.cli.data_volume:synthetic_volumes", "Generate synthetic volumes in clinical formats."
    ),
    Command(
        "data split",
        "octc.cli.data_split:split",
        "Show the split of a run (by patient, where known), or the folds of a cross-validation.",
    ),
    Command("data overlap", "octc.cli.licences:overlap", "Find images that two data sets share."),
    Command("data stats", "octc.cli.data_split:stats", "Show image counts, sizes, mean and std of the training pixels."),
    Command("train teacher", "octc.cli.train:teacher", "Train the large network (teacher) of a recipe."),
    Command("train student", "octc.cli.train:student", "Distil the teacher into a small network, then fine-tune it for INT8."),
    Command(
        "train retnet-teacher",
        "octc.cli.train:eye_teacher",
        "Train a teacher on OCT or fundus images with several labels each.",
    ),
    Command("train retnet-student", "octc.cli.train:eye_student", "Distil that teacher into a student for the other modality."),
    Command("search", "octc.cli.search:search", "Find the fastest student within a budget that is as good as the best."),
    Command("simplify", "octc.cli.simplify:simplify", "Simplify a trained student: activations, squeeze-excite, channels."),
    Command("eval", "octc.cli.eval:evaluate", "Evaluate a run on its validation or test set: tables, figures, intervals."),
    Command("compare", "octc.cli.compare:compare", "Compare two runs, artifacts or prediction tables on the same images."),
    Command("export", "octc.cli.export:export", "Export a run as ONNX, OpenVINO, LiteRT and TensorRT artifacts."),
    Command("import", "octc.cli.import_:import_", "Make an artifact from a network that was trained elsewhere."),
    Command("weights convert", "octc.cli.weights:convert", "Convert a checkpoint of another program to safetensors."),
    Command("analyze", "octc.cli.analyze:analyze", "Rank the layers of a run by their sensitivity to INT8."),
    Command("ptq", "octc.cli.ptq:ptq", "Compare post-training quantisation (PTQ) engines on one checkpoint."),
    Command(
        "lint", "octc.cli.lint:lint", "Check an ONNX graph for nodes that an engine rejects, runs in float or scales wrongly."
    ),
    Command("abstain", "octc.cli.abstain:abstain", "Fit prediction sets or a risk limit, and store them in artifacts."),
    Command("threshold", "octc.cli.threshold:threshold", "Choose thresholds or a referral rate, and store them in artifacts."),
    Command("verify", "octc.cli.verify:verify", "Test that an artifact is non-inferior to its reference."),
    Command("bench", "octc.cli.bench:bench", "Measure latency, throughput, memory and size of artifacts."),
    Command("choose", "octc.cli.choose:choose", "Name the artifact to deploy, and why."),
    Command("report", "octc.cli.report:report", "Write a report of a run: verdicts, figures, latencies, model card."),
    Command(
        "dossier", "octc.cli.dossier:dossier", "List what changed between two artifacts, what was tested, what is unknown."
    ),
    Command("artifact sign", "octc.cli.artifact:sign", "Sign artifacts with an Ed25519 key."),
    Command("artifact verify", "octc.cli.artifact:verify", "Check checksums and signatures of artifacts."),
    Command(
        "artifact licences", "octc.cli.licences:licences", "List the licences of an artifact's data, weights and teachers."
    ),
    Command("predict", "octc.cli.predict:predict", "Classify images and volumes with an artifact.", words="inputs"),
    Command("results", "octc.cli.results:results", "Summarise, filter and compare the rows that octc predict --out wrote."),
    Command("serve", "octc.cli.serve:serve", "Serve artifacts: KServe v2 (REST, gRPC), file upload, DICOM, a watched folder."),
    Command("serve-config", "octc.cli.serve:serve_config", "Write a model repository for another server (Triton)."),
    Command("monitor", "octc.cli.monitor:monitor", "Test on the device whether inputs or predictions have drifted."),
    Command("runs list", "octc.cli.runs:list_runs", "List runs, newest first, with what is missing for each."),
    Command("runs show", "octc.cli.runs:show", "Show one run: its inputs, stages and artifacts."),
    Command("runs prune", "octc.cli.prune:prune", "List unfinished runs and leftovers; delete them with --yes."),
    Command("config show", "octc.cli.config:show", "Show every configuration key with its value and origin."),
    Command("config init", "octc.cli.config:init", "Write a configuration file as a template."),
    Command("config validate", "octc.cli.config:validate", "Check the configuration without running anything."),
    Command("explain", "octc.cli.explain:explain", "Explain an error code or a term of a verdict, and what to do."),
    Command("completion", "octc.cli.completion:completion", "Print the completion script of a shell."),
)

Option = typer.Option
COMMON: dict[str, tuple[Any, Any]] = {
    "json": (Annotated[bool, Option("--json", help="Print one JSON document to stdout")], False),
    "quiet": (Annotated[bool, Option("--quiet", "-q", help="Print only warnings and errors to stderr")], False),
    "verbose": (
        Annotated[
            int, Option("--verbose", "-v", count=True, show_default=False, help="More log messages; -vv adds tracebacks")
        ],
        0,
    ),
    "no_color": (Annotated[bool, Option("--no-color", help="Print without colour")], False),
    "offline": (Annotated[bool, Option("--offline", help="Refuse every network connection")], False),
    "config": (Annotated[str | None, Option("--config", metavar="FILE", help="Configuration file (TOML)")], None),
    "run_dir": (Annotated[str | None, Option("--run-dir", metavar="DIR", help="Folder of the runs (./runs)")], None),
    "data": (Annotated[str | None, Option("--data", metavar="DIR", help="Root folder of the data set")], None),
}


def load(entry: Command) -> Callable[..., int]:
    """Import a command's function and give it the common options."""
    return command_of(_imported(entry), entry.name)


def _imported(entry: Command) -> Callable[..., int]:
    module, _, function = entry.where.partition(":")
    found: Callable[..., int] = getattr(importlib.import_module(module), function)
    return found


def call_plainly(entry: Command, words: Sequence[str], old_names: Sequence[OldName] = ()) -> int:
    """Call a command without options directly; building the parser would take a tenth of a second."""
    function = _imported(entry)
    values = {one.name: one.default for one in _own(function)} | {entry.words: list(words)}
    shared = {key: default for key, (_, default) in COMMON.items()}
    return bounded(entry.name, shared, functools.partial(_call, function, values, {entry.words}), old_names)


def hints_of(function: Callable[..., Any]) -> dict[str, Any]:
    """The annotations of a function, read without its defaults: Python 3.10 wraps a parameter with default None into
    Optional, and hashes Typer's objects for it, which are not hashable."""
    seen = SimpleNamespace(__annotations__=function.__annotations__)
    return get_type_hints(seen, globalns=function.__globals__, include_extras=True)


def command_of(function: Callable[..., int], name: str) -> Callable[..., int]:
    """`function(session, ...)` as a command: the same options plus the common ones, inside the error boundary."""
    own = sorted(_own(function), key=lambda parameter: parameter.name in DATA_KEYS)  # options for reading data come last
    common = [
        inspect.Parameter(key, inspect.Parameter.KEYWORD_ONLY, annotation=kind, default=default)
        for key, (kind, default) in COMMON.items()
    ]
    context = inspect.Parameter("context", inspect.Parameter.KEYWORD_ONLY, annotation=typer.Context)

    def command(*, context: typer.Context, **values: Any) -> int:
        shared = {key: values.pop(key) for key in COMMON}
        given = {key for key in values if _given(context, key)}
        return bounded(name, shared, functools.partial(_call, function, values, given), context.obj or ())

    signature = inspect.Signature([context, *own, *common])
    command.__signature__ = signature  # type: ignore[attr-defined]
    command.__annotations__ = {key: parameter.annotation for key, parameter in signature.parameters.items()}
    command.__name__, command.__doc__ = function.__name__, function.__doc__
    return command


def _own(function: Callable[..., int]) -> list[inspect.Parameter]:
    """The parameters of a command without its session, as keywords."""
    hints = hints_of(function)
    return [
        one
        for parameter in list(inspect.signature(function).parameters.values())[1:]
        for one in _parameters(parameter.replace(annotation=plain_hint(hints[parameter.name])))
    ]


def _parameters(parameter: inspect.Parameter) -> list[inspect.Parameter]:
    """A parameter as keywords of a command; an options dataclass gives one for each field that `option` made."""
    if not is_dataclass(parameter.annotation):
        kind = _limited(parameter.annotation)
        return [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY, annotation=kind)]
    hints = get_type_hints(parameter.annotation, include_extras=True)
    return [
        inspect.Parameter(
            one.name,
            inspect.Parameter.KEYWORD_ONLY,
            annotation=_annotated(plain_hint(hints[one.name]), one),
            default=_typed_default(one),
        )
        for one in described(parameter.annotation)
    ]


def _typed_default(one: Field[Any]) -> Any:
    """A field's default in the unit of the command line; `_stored` converts it back."""
    if one.default is MISSING:
        return inspect.Parameter.empty
    per = one.metadata[PER]
    return one.default if per == 1 or one.default is None else float(typed_number(one.default, per))


def _limited(kind: Any) -> Any:
    """A parameter's type; a `OneOf` in its annotation becomes a Literal of the allowed words."""
    more = getattr(kind, "__metadata__", ())
    words = [one.words for one in more if isinstance(one, OneOf)]
    if not words:
        return kind
    optional = type(None) in get_args(get_args(kind)[0])
    rest = (one for one in more if not isinstance(one, OneOf))
    return Annotated[(one_of(tuple(words[0]), optional=optional), *rest)]


def _annotated(kind: Any, one: Field[Any]) -> Any:
    """A field's type with its option. The reader of a Path checks that it exists."""
    shown = one.metadata
    if shown[CHOICES]:
        kind = one_of(shown[CHOICES], optional=one.default is None)
    return Annotated[kind, Option(*shown[NAMES], help=shown[HELP], metavar=shown[METAVAR], min=shown[LEAST], max=shown[MOST])]


def gather(function: Callable[..., int], values: dict[str, Any]) -> dict[str, Any]:
    """The arguments of a command's function from option values; options of a dataclass become one object."""
    hints = {key: plain_hint(kind) for key, kind in hints_of(function).items()}
    made = {}
    for key in list(inspect.signature(function).parameters)[1:]:
        if is_dataclass(hints[key]):
            made[key] = hints[key](**{one.name: _stored(values[one.name], one) for one in described(hints[key])})
        else:
            made[key] = values[key]
    return made


def _stored(value: Any, one: Field[Any]) -> Any:
    """A command-line value in the unit of the field."""
    return value if one.metadata[PER] == 1 or value is None else value / one.metadata[PER]


def one_of(choices: Sequence[str], *, optional: bool = False) -> Any:
    """A Literal type of choices that are known only when the command is loaded."""
    kind = Literal[tuple(choices)]  # type: ignore[valid-type]
    return kind | None if optional else kind


def plain_hint(kind: Any) -> Any:
    """A parameter's Annotated type. Python 3.10 wraps it into Optional where the default is None."""
    inner = [one for one in get_args(kind) if get_origin(one) is Annotated]
    return inner[0] if len(inner) == 1 and get_origin(kind) in (Union, UnionType) else kind


def _given(context: typer.Context, key: str) -> bool:
    """Whether an option was given on the command line."""
    source = context.get_parameter_source(key)
    return source is not None and source.name != "DEFAULT"


def _call(function: Callable[..., int], values: dict[str, Any], given: set[str], session: Session) -> int:
    """Fill what was not given on the command line from the configuration, note the origins, and run."""
    section = session.command.split()[0]
    for key, value in list(values.items()):
        if not fits_64_bits(value):
            option = f"--{key.replace('_', '-')}"
            text = f"{option} {value} is no number of 64 bits"
            raise OctcError("OCT-E104", text, hint=f"octc {session.command} --help", place=option)
        name = config_option(section, key)
        configured = None if name is None else session.settings.get(section, {}).get(name)
        if key in DATA_KEYS:  # section "data" for every command; a patient rule on the command line replaces a configured one
            replaced = key in WHOSE and given.intersection(WHOSE)
            configured = None if replaced else session.settings.get("data", {}).get(key)
        origin = "flag" if key in given else "default"
        if key not in given and configured is not None:
            values[key], origin = configured
        session.origins[f"{section}.{name or key}"] = origin
    return function(session, **gather(function, values))


def open_session(name: str, shared: dict[str, Any]) -> Session:
    """A session from the common options. Raises what the configuration raises (E103, E104, E105, E107)."""
    session = Session(
        command=name, json=shared["json"], quiet=shared["quiet"], verbose=shared["verbose"], color=not shared["no_color"]
    )
    session.config = shared["config"]
    session.data = shared["data"]
    session.offline = shared["offline"]
    session.run_dir = Path(shared["run_dir"] or "runs")
    return session


def apply_settings(session: Session, shared: dict[str, Any], settings: Settings) -> None:
    """Common options that the configuration may give: offline, run.dir, data.root."""
    session.settings = settings
    session.offline = shared["offline"] or bool(bool_of(settings, "offline"))
    if shared["run_dir"] is None and "dir" in settings.get("run", {}):
        session.run_dir = Path(settings["run"]["dir"][0])
    for key, (value, _) in settings.get("artifact", {}).items():  # all readers use the environment; child processes inherit it
        os.environ[f"OCTC_ARTIFACT__{key.upper()}"] = str(value)
    if "root" in settings.get("data", {}):
        os.environ.setdefault("OCTC_DATA", str(settings["data"]["root"][0]))


def bounded(name: str, shared: dict[str, Any], work: Callable[[Session], int], old_names: Sequence[OldName] = ()) -> int:
    """Run `work` inside the error boundary and return the exit code. old_names: deprecated names that were used."""
    session = open_session(name, shared)
    _start_log(session.verbose)
    error: OctcError | None = None
    try:
        with _terminable():
            settings, notes = read_settings(session.config, os.environ, Path.cwd())
            apply_settings(session, shared, settings)
            for warned, note in (*notes, *(("OCT-W102", one.words) for one in old_names)):
                session.warn(warned, note)
            if session.offline:
                go_offline()
            code = int(work(session) or 0)
    except ClosedPipe:
        return BROKEN_PIPE
    except Terminated as ended:
        code = ended.exit_code
    except KeyboardInterrupt:
        code = INTERRUPTED
    except Exception as caught:  # the error boundary: every other exception becomes an OctcError
        error = sort_error(caught, name)
        code = error.exit_code
        if session.verbose >= 2:
            tell(shown("".join(traceback.format_exception(type(caught), caught, caught.__traceback__))))
    return close(session, code, error)


def close(session: Session, code: int, error: OctcError | None) -> int:
    """Print the error to stderr and the JSON envelope to stdout."""
    if error is not None:
        tell(error_text(error, session.colour))
    if code in ENDED:
        tell(f"{ENDED[code]}\n")
    if session.json:
        answer(json.dumps(finite(envelope(session, code, error)), allow_nan=False, indent=1) + "\n")
    return code


def envelope(session: Session, code: int, error: OctcError | None) -> dict[str, Any]:
    """The JSON envelope that `--json` prints."""
    words = {0: "ok", 1: "gate_failed", **dict.fromkeys(ENDED, "interrupted")}
    value: dict[str, Any] = {
        "schema_version": SCHEMA,
        "command": session.command,
        "status": words.get(code, "error"),
        "exit_code": code,
        "run_id": session.run_id,
        "data": session.document,
        "warnings": session.warnings,
        "error": None if error is None else error_json(error),
    }
    if session.offline:
        value["offline"] = {"requested": True, "refused_attempts": refused_attempts()}
    return value


class _Shown(logging.Formatter):
    """Escapes control characters in log records (file names, messages of other libraries)."""

    def format(self, record: logging.LogRecord) -> str:
        return shown(super().format(record))


class _Stderr(logging.Handler):
    """Writes to the current sys.stderr: a program that calls octc may have replaced or closed it since."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            sys.stderr.write(f"{self.format(record)}\n")
        except (OSError, ValueError):
            self.handleError(record)


def _start_log(verbose: int) -> None:
    """Send the log of octc to stderr, at the level of -v."""
    level = (logging.WARNING, logging.INFO, logging.DEBUG)[min(verbose, 2)]
    logger = logging.getLogger("octc")
    logger.setLevel(level)
    for handler in [h for h in logger.handlers if h.get_name() == "octc-cli"]:
        logger.removeHandler(handler)
    handler = _Stderr()
    handler.set_name("octc-cli")
    handler.setFormatter(_Shown("%(levelname)s %(name)s: %(message)s"))
    logger.addHandler(handler)


@contextmanager
def _terminable() -> Iterator[None]:
    """Raise Terminated on SIGTERM and HungUp on SIGHUP, so that `finally` blocks and handlers of KeyboardInterrupt run. An
    ignored SIGHUP (nohup) stays ignored."""

    def stop(number: int, _frame: Any) -> None:
        raise HungUp if number == signal.SIGHUP else Terminated

    numbers = [signal.SIGTERM, *([signal.SIGHUP] if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN else [])]
    try:
        before = {number: signal.signal(number, stop) for number in numbers}
    except ValueError:  # not in the main thread: signal handlers cannot be set here
        yield
        return
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler or signal.SIG_DFL)
