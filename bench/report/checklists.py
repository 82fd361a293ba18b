"""Reporting checklists with what octc knows filled in; the rest is left to the author, and says so.

CLAIM 2024 update: Tejani et al., Radiology: Artificial Intelligence 2024;6(4):e240300. TRIPOD+AI: Collins et al., BMJ
2024;385:e078378. The topics are shortened; the wording of the items is theirs.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

AUTHOR = "for the author: octc does not know it"
Item = tuple[str, str, str]  # number, topic, key of the facts that answer it or ""

CLAIM: tuple[Item, ...] = (
    ("1", "study of AI methodology, category of technology", "kind"), ("2", "structured summary", ""),
    ("3", "background, intended use and role", "intended"), ("4", "aims and hypotheses", "claim"),
    ("5", "prospective or retrospective", ""), ("6", "goal of the study", "claim"), ("7", "data sources", "data"),
    ("8", "inclusion and exclusion", "excluded"), ("9", "preprocessing", "preprocess"),
    ("10", "selection of subsets", "split"), ("11", "de-identification", ""), ("12", "missing data", "missing"),
    ("13", "image acquisition", ""), ("14", "reference standard: definition", "labels"),
    ("15", "reference standard: rationale", ""), ("16", "reference standard: source of annotations", "labels"),
    ("17", "annotation of the test set", "labels"), ("18", "variability between and within raters", ""),
    ("19", "assignment to partitions", "split"), ("20", "level at which partitions are disjoint", "disjoint"),
    ("21", "intended sample size", "power"), ("22", "model", "model"), ("23", "libraries and packages", "software"),
    ("24", "initial parameters", "start"), ("25", "training", "training"),
    ("26", "selection of the final model", "selection"), ("27", "ensembles", "ensemble"), ("28", "metrics", "metrics"),
    ("29", "significance and uncertainty", "uncertainty"), ("30", "robustness", "robustness"), ("31", "explainability", ""),
    ("32", "evaluation on internal data", "internal"), ("33", "testing on external data", ""),
    ("34", "trial registration", ""), ("35", "numbers included and excluded", "counts"),
    ("36", "demographic and clinical characteristics", ""), ("37", "performance and its uncertainty", "results"),
    ("38", "diagnostic performance and its precision", "results"), ("39", "failures", "failures"),
    ("40", "limitations", "limits"), ("41", "implications for practice", "intended"),
    ("42", "protocol, technical details", "details"), ("43", "availability of software, model, data", "availability"),
    ("44", "funding", ""),
)  # fmt: skip
TRIPOD_AI: tuple[Item, ...] = (
    ("1", "title", "kind"), ("2", "abstract", ""), ("3a", "context and rationale", ""),
    ("3b", "population and purpose", "intended"), ("3c", "known health inequalities", ""), ("4", "objectives", "claim"),
    ("5a", "sources of data", "data"), ("5b", "dates of the data", ""), ("6a", "setting", ""),
    ("6b", "eligibility", "excluded"), ("6c", "treatments", ""), ("7", "preparation of data", "preprocess"),
    ("8a", "outcome", "labels"), ("8b", "assessors of the outcome", ""), ("8c", "blinding of the outcome", ""),
    ("9a", "choice of predictors", "preprocess"), ("9b", "definition of predictors", "preprocess"),
    ("9c", "blinding of predictors", ""), ("10", "sample size", "power"), ("11", "missing data", "missing"),
    ("12a", "use of the data in the analysis", "split"), ("12b", "handling of predictors", "preprocess"),
    ("12c", "type of model, building", "training"), ("12d", "heterogeneity between clusters", "uncertainty"),
    ("12e", "measures of performance", "metrics"), ("12f", "updating of the model", "compression"),
    ("12g", "how outputs are calculated", "model"), ("13", "class imbalance", "training"), ("14", "fairness", ""),
    ("15", "output of the model", "output"), ("16", "differences of training and evaluation", "internal"),
    ("17", "ethical approval", ""), ("18a", "funding", ""), ("18b", "conflicts of interest", ""),
    ("18c", "protocol", "details"), ("18d", "registration", ""), ("18e", "data sharing", "availability"),
    ("18f", "code sharing", "availability"), ("19", "patient and public involvement", ""),
    ("20a", "flow of participants", "counts"), ("20b", "characteristics", ""),
    ("20c", "comparison of development and evaluation", ""), ("21", "numbers in each analysis", "counts"),
    ("22", "full specification of the model", "details"), ("23a", "performance with intervals", "results"),
    ("23b", "heterogeneity of performance", ""), ("24", "results of updating", "results"), ("25", "interpretation", ""),
    ("26", "limitations", "limits"), ("27a", "input of poor quality", "quality"),
    ("27b", "interaction and expertise of users", ""), ("27c", "next steps", ""),
)  # fmt: skip
CHECKLISTS = {"claim": ("CLAIM 2024", CLAIM), "tripod-ai": ("TRIPOD+AI 2024", TRIPOD_AI)}
# facts that are the same for every run, or say where to look: they help the author, and answer nothing
HINTS = ("availability", "details", "excluded", "labels", "missing", "quality")
FILLER = re.compile(r"(none|null|nan|n/a|-|unknown|not (known|stated|given|measured|recorded)|to be .*)?\.?", re.IGNORECASE)
ANSWERED, HINT, OPEN = "answered", "hint", "open"


def filled(name: str, facts: Mapping[str, str]) -> tuple[str, list[tuple[str, str, str]]]:
    """The title of a checklist and its rows: number, topic, what octc knows or that the author must say it."""
    title, items = CHECKLISTS[name]
    return title, [(number, topic, _text(facts, key)) for number, topic, key in items]


def counted(name: str, facts: Mapping[str, str]) -> dict[str, int]:
    """How many items are answered, have a hint for the author only, or are open."""
    states = [state(facts, key) for _, _, key in CHECKLISTS[name][1]]
    return {one: states.count(one) for one in (ANSWERED, HINT, OPEN)}


def state(facts: Mapping[str, str], key: str) -> str:
    """Whether a fact answers an item: it is there, it is about this run, and it is no filler."""
    text = facts.get(key, "").strip()
    if not text:
        return OPEN
    return HINT if key in HINTS or is_filler(text) else ANSWERED


def is_filler(text: str) -> bool:
    """Whether a text only says that something is not said."""
    return FILLER.fullmatch(text.strip()) is not None


def _text(facts: Mapping[str, str], key: str) -> str:
    found = state(facts, key)
    return facts[key] if found == ANSWERED else f"{AUTHOR}; a hint: {facts[key]}" if found == HINT else AUTHOR
