"""Which columns of prediction tables mean what: by their usual names, or as they were stated."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from octc.bench.parity.tables.read import Source
from octc.core.errors import OctcError
from octc.datasets.tables import place_of
from octc.schemas.comparing import NOBODY, TableOptions

KEYS = (
    "id",
    "key",
    "row_id",
    "sample_id",
    "image_id",
    "image",
    "path",
    "file",
    "filename",
    "doc_id",
    "index",
    "eye",
    "patient",
)
TRUTH = ("truth", "y_true", "ground_truth", "gold", "true_label", "true", "target", "label", "class", "diagnosis")
ANSWERS = ("prediction", "predicted", "pred", "y_pred", "predicted_label", "predicted_class", "answer", "label")
RIGHT = ("correct", "is_correct", "right", "acc", "acc_norm", "exact_match")
CHANCE = ("probability", "prob", "score", "y_score", "p")  # of the second of two classes
PROBABILITIES = ("p_", "prob_", "proba_", "probability_", "score_")  # before the name of a class
LOGITS = ("logit_",)
FINDINGS = ("label_", "true_", "y_")  # before a finding: a column of its truth
CONFIDENCE = "confidence"  # stands beside a label that is an answer (octc predict)
SEVERAL = "|;"  # between the findings of one cell


@dataclass(frozen=True)
class Answer:
    """How a table answers: "logits", "probabilities" (a column for each class), "chance", "answers" or "right" (one column)."""

    form: str
    columns: tuple[str, ...]
    classes: tuple[str, ...] = ()


def names_in(text: str | None) -> tuple[str, ...]:
    """What an option lists, separated by commas."""
    return () if text is None else tuple(name.strip() for name in text.split(",") if name.strip())


def check_column(source: Source, name: str, option: str) -> str:
    """The column of this name (E209 where there is none)."""
    if name not in source.names:
        text = f"no column {name!r} in {source.name}; it has {', '.join(source.names[:40])}"
        raise OctcError("OCT-E209", text, hint=f"{option} with a column of the table", place=str(source.path))
    return name


def key_columns(tables: Sequence[Source], options: TableOptions) -> tuple[str, ...]:
    """The columns that name a row: as stated, else the first usual name that every table has."""
    stated = names_in(options.key)
    for source in tables:
        for name in stated:
            check_column(source, name, "--key")
    if stated:
        return stated
    for name in KEYS:
        if all(name in source.names for source in tables):
            return (name,)
    text = f"no usual column names the rows of {', '.join(source.name for source in tables)}"
    why = "; ".join(f"{source.name} has {', '.join(source.names[:10])}" for source in tables)
    raise OctcError("OCT-E209", text, hint="--key COLUMN[,COLUMN]: rows are joined by it", place="--key", why=why)


def truth_columns(source: Source, options: TableOptions, stated: str | None) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The columns of the truth, and the findings that they are of (() where one column names the class). None: ()."""
    if stated is not None:
        return (check_column(source, stated, "--labels"),), ()
    if options.task != "multiclass":
        for prefix in FINDINGS:
            found = [name for name in source.names if name.startswith(prefix) and len(name) > len(prefix)]
            if len(found) > 1:
                return tuple(found), tuple(name.removeprefix(prefix) for name in found)
    for name in TRUTH:
        if name in source.names and not (name == "label" and CONFIDENCE in source.names):
            return (name,), ()
    return (), ()


def cluster_column(sources: Sequence[Source], options: TableOptions) -> tuple[Source, str] | None:
    """Who rows belong to: the first of these tables that has the column."""
    if options.cluster == NOBODY:
        return None
    if options.cluster is None:
        for source in sources:
            if (place := place_of("patient", source.names, source.path)) is not None:
                return source, source.names[place]
        return None
    holder = next((source for source in sources if options.cluster in source.names), sources[0])
    return holder, check_column(holder, options.cluster, "--cluster")


def answer_columns(source: Source, options: TableOptions, truth: Sequence[str], known: Sequence[str]) -> Answer:
    """How a table answers.

    Args:
        truth: columns that hold the truth, and are no answer. known: classes of the truth, () where it has none.

    Raises:
        OctcError: E209 none of its columns is an answer, or several are.
    """
    if options.answers is not None:
        name = check_column(source, options.answers, "--answers")
        return Answer(_form(name, options), (name,))
    free = [name for name in source.names if name not in truth]
    for form, prefixes in (("logits", LOGITS), ("probabilities", PROBABILITIES)):
        for prefix in prefixes:
            found = [name for name in free if name.startswith(prefix) and len(name) > len(prefix)]
            if len(found) > 1 or (found and len(known) == 1):
                return Answer(form, tuple(found), tuple(name.removeprefix(prefix) for name in found))
    if len(known) > 1 and all(name in free for name in known):
        return Answer("probabilities", tuple(known), tuple(known))
    for form, names in (("answers", ANSWERS), ("right", RIGHT), ("chance", CHANCE)):
        if form == "answers" and (options.task == "right" or not known):
            continue
        found = [name for name in names if name in free]
        if len(found) > 1 and form == "right":
            text = f"{source.name} says by several columns which rows are right: {', '.join(found)}"
            raise OctcError("OCT-E209", text, hint=f"--answers {found[0]}   (or another one)", place=str(source.path))
        if found:
            return Answer(form, (found[0],))
    text = f"no column of {source.name} is a known form of answer; it has {', '.join(source.names[:40])}"
    hint = "--answers COLUMN, or p_<class> for each class; with --labels where the truth is another table"
    raise OctcError("OCT-E209", text, hint=hint, place=str(source.path))


def _form(name: str, options: TableOptions) -> str:
    """Of a column that was named: as it is called, else classes."""
    if options.task == "right" or name in RIGHT:
        return "right"
    return "chance" if name in CHANCE or options.threshold is not None else "answers"
