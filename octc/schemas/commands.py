"""Documents of the commands whose documents are small."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from msgspec import UNSET, UnsetType, field

from octc.schemas.common import Code, Document, Table


class Version(Document):
    octc: str
    python: str
    libraries: dict[str, str | None]


class Completion(Document):
    shell: str
    script: str
    use: str


class ConfigFile(Document):
    file: str


class Setting(Document):
    key: str
    value: Any
    origin: str


class Settings(Document):
    settings: list[Setting]


class Configured(Document):
    key: str
    origin: str


class ConfigValues(Document):
    values: list[Configured]


class Signed(Document):
    artifact: str
    key: str
    file: str


class SignedArtifacts(Document):
    signed: list[Signed]


class Checked(Document):
    artifact: str
    key: Any
    files: int


class CheckedArtifacts(Document):
    verified: list[Checked]


class Entry(Document):
    """What is known of a code or a word."""

    name: str
    exit_code: int | None
    means: str
    why: str | None
    causes: list[str]
    hint: list[str]
    mend: list[str]  # the old name of `hint` (octc/core/deprecated.py)
    related: list[str]


class Entries(Document):
    entries: list[Entry]


class PrintedSchema(Document):
    schema: Table


class ModelRow(Document):
    """A network of a recipe. missing: what has to be done here before it can be trained, a line each."""

    model: str
    role: Literal["teacher", "student"]
    recipe: str
    size: int
    weights: str
    missing: list[str]


class DatasetRow(Document):
    dataset: str
    root: str | None
    what: str = field(name="what it is")
    missing: list[str]


class RecipeRow(Document):
    recipe: str
    teacher: str
    student: str
    size: int
    missing: list[str]


class RunRow(Document):
    """A run; what its run.json does not say is None."""

    run: str
    kind: str | None
    dataset: str | None
    status: str | None
    created: str | None
    artifacts: list[str]
    missing: list[str]


class Listing(Document, forbid_unknown_fields=True, kw_only=True):
    """Of what was asked for at least one."""

    RULES: ClassVar[Table] = {"minProperties": 1}

    models: list[ModelRow] | UnsetType = UNSET
    datasets: list[DatasetRow] | UnsetType = UNSET
    recipes: list[RecipeRow] | UnsetType = UNSET
    runs: list[RunRow] | UnsetType = UNSET


class Analysis(Document):
    run: str
    folder: str


class Lint(Document, kw_only=True):
    file: str
    target: str
    findings: list[dict[str, str]]
    clean: bool
    repairs: list[str] | UnsetType = UNSET
    findings_after: list[dict[str, str]] | UnsetType = UNSET
    fixed_file: str | UnsetType = UNSET


class Engines(Document):
    """Engines of post-training quantisation, compared."""

    run: str
    part: str
    images: int
    rows: list[Table]
    absent: dict[str, str]


class Report(Document):
    folder: str
    files: list[str]
    report: Table


class ServerConfig(Document):
    server: str
    model: str
    config: str


class Check(Document):
    """One line of the doctor."""

    group: str
    state: Literal["ok", "info", "warning", "problem"]
    text: str
    hint: str | None
    mend: str | None  # the old name of `hint` (octc/core/deprecated.py)
    code: Code | None


class Counts(Document):
    ok: int
    info: int
    warning: int
    problem: int


class Health(Document):
    """What the doctor found."""

    target: Literal["x86", "jetson", "gpu", "tensorrt"] | None
    checks: list[Check]
    counts: Counts
