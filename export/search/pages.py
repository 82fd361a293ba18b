"""What a search leaves for people: its table, and accuracy over time as a figure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from octc.bench.timing.render_markdown import table_lines
from octc.core.files import write_bytes
from octc.core.progress import spell_seconds
from octc.export.search.select import Budget
from octc.export.search.state import Book
from octc.figures.canvas import to_svg
from octc.figures.pareto import Point, pareto_figure
from octc.schemas.common import builtins
from octc.schemas.search import Measured, Timing

FIGURE, TABLE = "pareto.svg", "table.md"
COLUMNS = ("candidate", "network", "px", "engine", "p50 ms", "95 %", "MB", "MMAC", "result", "val %", "95 %", "why")
STATES = {
    "over_budget": "over budget", "dominated": "dominated", "not_exported": "not exported", "not_measured": "not measured",
    "not_trained": "not trained", "cut": "no time",
}  # fmt: skip


def write_pages(book: Book, budget: Budget) -> None:
    """pareto.svg and table.md in the folder of a search."""
    points = _points(book)
    if points:
        title = f"Validation accuracy against time ({budget.words()}; area: size of the files)"
        write_bytes(book.folder / FIGURE, to_svg(pareto_figure(points, title)))
    document = builtins(book.document)
    lines = table_lines(COLUMNS, table_rows(document))
    text = "\n".join(
        [f"# {book.document.search}: {budget.words()}", "", *lines, "", *(f"{x}  " for x in answer_lines(document))]
    )
    write_bytes(book.folder / TABLE, (text + "\n").encode())


def are_written(book: Book) -> bool:
    """Whether `write_pages` came to its end."""
    return (book.folder / TABLE).is_file()


def _points(book: Book) -> list[Point]:
    """The last trial of each candidate that was trained."""
    found = []
    for name, trial in book.last_trials().items():
        timing = _chosen(book.measured(name))
        if timing is None or timing.ms is None or trial.accuracy is None:
            continue
        low, high = trial.accuracy_ci95 or (trial.accuracy, trial.accuracy)
        label = f"{name} ({trial.epochs} epochs)"
        found.append(Point(label, timing.ms, 100 * trial.accuracy, 100 * low, 100 * high, timing.bytes / 2**20))
    return found


def _chosen(row: Measured) -> Timing | None:
    return next((one for one in row.timings if one.target == row.chosen), None)


def table_rows(document: Mapping[str, Any]) -> list[list[str]]:
    """One row a candidate of search.json (or of a dry run): what it costs, how far it came, and why no further. Those that
    have no start weights on this machine are no rows: `answer_lines` names them together."""
    trials = {t["name"]: t for one in document.get("rounds", ()) for t in one["trials"] if t["accuracy"] is not None}
    failed = {t["name"]: t["why"] for one in document.get("rounds", ()) for t in one["trials"] if t["state"] == "failed"}
    winner = (document.get("winner") or {}).get("name")
    rows = (row for row in document["candidates"] if row["state"] != "no_weights")
    return [_row(row, trials.get(row["candidate"]["name"]), failed, winner) for row in rows]


def _row(row: Mapping[str, Any], trial: Mapping[str, Any] | None, failed: Mapping[str, str], winner: str | None) -> list[str]:
    one, name = row["candidate"], row["candidate"]["name"]
    timing = next((t for t in row["timings"] if t["target"] == row["chosen"]), None)
    result, why = STATES.get(row["state"], "kept"), row["why"]
    if name in failed:
        result, why = "failed", failed[name]
    elif trial is not None:
        state = {"out": "out after", "promoted": "cut after", "finalist": "finalist,"}.get(trial["state"], "")
        result = f"{state} {trial['epochs']} epochs"
    if name == winner:
        result = "WINNER"
    if timing is not None and timing["status"] == "INVALID":
        why = "; ".join(filter(None, (f"disturbed: {', '.join(timing['why'])}", why)))
    limits = trial["accuracy_ci95"] if trial else None
    return [
        name,
        _network(one),
        str(one["size"]),
        "-" if timing is None else timing["engine"],
        "-" if timing is None else f"{timing['ms']:.3g}",
        "-" if timing is None else "[{:.3g}, {:.3g}]".format(*timing["ms_ci95"]),
        "-" if timing is None else f"{timing['bytes'] / 1e6:.3g}",
        "-" if row["macs"] is None else f"{row['macs'] / 1e6:.0f}",
        result,
        "-" if trial is None else f"{100 * trial['accuracy']:.2f}",
        "-" if limits is None else "[{:.2f}, {:.2f}]".format(*(100 * x for x in limits)),
        why or "-",
    ]


def _network(one: Mapping[str, Any]) -> str:
    """Its name, and how it differs from the network of that name."""
    parts = [one["model"], one.get("activation") or "", "" if one["squeeze_excite"] else "without squeeze-excite"]
    return " ".join(filter(None, [*parts, f"pruned by {100 * one['prune']:g} %" if one["prune"] else ""]))


def answer_lines(document: Mapping[str, Any]) -> list[str]:
    """Finalists, winner, test, correction, commands; of a dry run the plan and about what it takes."""
    return [*_without_weights(document), *(_dry_lines(document) if document.get("dry_run") else _lines(document))]


def _without_weights(document: Mapping[str, Any]) -> Iterator[str]:
    """Candidates that are left out for want of start weights, a line for each place where weights come from."""
    left = [row for row in document["candidates"] if row["state"] == "no_weights"]
    for place in dict.fromkeys(row["candidate"]["weights"] for row in left):
        of_it = [row for row in left if row["candidate"]["weights"] == place]
        names = ", ".join(row["candidate"]["name"] for row in of_it)
        yield f"no start weights here for {len(of_it)} candidates: {names} ({of_it[0]['why']})"


def _dry_lines(document: Mapping[str, Any]) -> Iterator[str]:
    plan = document["plan"]
    yield from (f"! {note}" for note in document["notes"])
    yield f"to measure: {document['to_measure']} files, about {spell_seconds(document['measuring_seconds'])}"
    yield from _plan_lines(plan)
    total = document["measuring_seconds"] + plan["seconds"]
    yield f"together at most {spell_seconds(total)} ({plan['note']})"


def _plan_lines(plan: Mapping[str, Any]) -> Iterator[str]:
    rounds = ", then ".join(f"{count} for {epochs} epochs" for count, epochs in plan["rounds"])
    among = f" with {plan['workers']} workers" if plan["workers"] > 1 else ""
    most = f"at most {spell_seconds(plan['seconds'])}{among}"
    share = 100 * plan["seconds"] / plan["full_seconds"] if plan["full_seconds"] else 0
    full = spell_seconds(plan["full_seconds"])
    yield f"rounds: {rounds}: {most}, {share:.0f} % of training all to the end ({full})"
    if plan["cut"]:
        yield f"no time for: {', '.join(plan['cut'])}"


def _lines(document: Mapping[str, Any]) -> Iterator[str]:
    yield from (f"! {note}" for note in document["notes"])
    if document["plan"]:
        yield from _plan_lines(document["plan"])
    for one in document["finalists"]:
        limits = one["difference_ci95_pp"]
        shown = "the best" if limits is None and one["difference_pp"] == 0 else f"{one['difference_pp']:+.2f} points"
        shown += "" if limits is None else " [{:+.2f}, {:+.2f}]".format(*limits)
        word = "non-inferior" if one["non_inferior"] else "not shown to be non-inferior"
        patients = "unknown patients" if one["patients"] is None else f"{one['patients']} patients"
        accuracy = f"{100 * one['accuracy']:.2f} % of {one['n']} validation images of {patients}"
        yield (f"  {one['name']}: {one['ms']:.3g} ms, {accuracy}; {shown}: {word} at {document['margin_pp']:g} points")
    yield from (f"! {line}" for line in document["refused"])
    winner = document["winner"]
    if winner is None:
        return
    time = "not measured" if winner["ms"] is None else "{:.3g} ms [{:.3g}, {:.3g}]".format(winner["ms"], *winner["ms_ci95"])
    size = "" if winner["bytes"] is None else f", {winner['bytes'] / 1e6:.3g} MB"
    budget = {None: "", True: ", within the budget", False: ", OVER THE BUDGET"}[winner["within_budget"]]
    yield f"winner: {winner['name']} ({winner['run']}), {winner['artifact']}: {time}{size}{budget}"
    accuracy = f"{100 * winner['validation_accuracy']:.2f} % (it chose: optimistic)"
    yield f"  validation {accuracy}; test: {_test_words(winner['test'])}"
    yield f"  {document['correction']}"
    yield from (f"  {k}. {line}" for k, line in enumerate(document["commands"], 1))


def _test_words(test: Mapping[str, Any] | None) -> str:
    if test is None:
        return "not looked at (its images are not here)"
    words = []
    for claim in test["claims"]:
        one = claim["accuracy"]
        pair = "" if one["candidate"] is None else f" ({one['reference']:.2f} -> {one['candidate']:.2f} %)"
        words.append(f"{str(claim['word']).replace('_', ' ')} against {claim['against']}{pair}")
    return "; ".join(words) or str(test["word"]).replace("_", " ")
