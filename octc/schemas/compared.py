"""Documents of `octc compare`: two networks beside each other, or two prediction tables judged."""

from __future__ import annotations

from typing import Literal

from octc.schemas.common import Table
from octc.schemas.evaluation import Compared
from octc.schemas.verify import Blocks

__all__ = ["Compared", "ComparedTables"]


class ComparedTables(Blocks, kw_only=True):
    """Two prediction tables: the blocks of a `Claim` (null where the tables do not say so much), and how they were read."""

    command: Literal["compare"]
    against: Literal["table"]
    task: Literal["multiclass", "multilabel"]
    form: Literal["scores", "answers", "right"]
    class_names: list[str]
    key: list[str]
    cluster: str | None
    unit: str
    tables: list[str]
    unmatched: dict[str, list[str]]
    reference: Table
    candidate: Table
    set: Table
    agreement: Table | None
    decisions: Table | None
    folder: str
