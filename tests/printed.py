"""Printed text without what another machine, another moment or the last bits of a training would print otherwise."""

from __future__ import annotations

import re

VARIES = (
    (r"/[\w./-]*/(?=(runs|images|drawn|patterns|reports)\b)", "DIR/"),
    (r"\br-\d{4}-[\w-]+", "RUN"),
    (r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d(:\d\d)?Z?", "TIME"),
    (r"\b(report|bench|b)-\d[\w-]*", r"\1-TIME"),
    (r"\b[0-9a-f]{8,64}\b", "SUM"),
    (r" {2,}", "  "),
    (r"─+", "─"),
)
FIGURE = r"(?<![\w.-])[-+]?\d+(,\d{3})*(\.\d+)*(e[-+]?\d+)?(?![\w-])"  # of a text; part of a name it is none


def told(text: str, *, figures: bool = False) -> str:
    """The text with letters for paths, runs, times and checksums; with `figures` for every number too."""
    for pattern, letter in (*VARIES, *([(FIGURE, "N")] if figures else [])):
        text = re.sub(pattern, letter, text)
    return "\n".join(line.rstrip() for line in text.splitlines())
