"""The breakdown's tables: one for programs with every number, and those that a person reads."""

from collections.abc import Iterable, Sequence
from dataclasses import replace

from mrbench.report import words
from mrbench.report.build import Report
from mrbench.report.detail import TOTALS, Detail, Quantity, Section
from mrbench.report.statistics import BETTER, WORSE, Difference, Summary
from mrbench.report.table import Cell, Column, Row, Table

SHORT = {  # as TIDE prints them
    "classification": "Cls",
    "localisation": "Loc",
    "both": "Both",
    "duplicate": "Dupe",
    "background": "Bkg",
    "missed": "Miss",
    "false_positive": "FP",
    "false_negative": "FN",
}
ROOMY = ("both", "duplicate", *TOTALS)  # what a narrow terminal leaves out
TITLES = {
    "errors": "Points of AP50 that each kind of error costs",
    "sizes": "AP by size of object",
    "thresholds": "AP by IoU threshold",
}
GAPS = {"errors": "Errors by category", "thresholds": "AP by IoU threshold", "classes": "AP by class"}
DIGITS = 1


def everything(report: Report) -> Table:
    """Every number of the breakdown at full precision, one row for each quantity and arm."""
    columns = (
        Column("section", ("section",)),
        Column("quantity", ("quantity",)),
        Column("arm", ("arm",)),
        Column("seeds", ("seeds",), numeric=True),
        Column("mean ± sd", ("mean", "sd"), numeric=True),
        Column("95 % interval", ("low", "high"), numeric=True),
        Column("difference", ("difference", "difference_low", "difference_high"), numeric=True),
        Column("p (Holm)", ("p", "p_holm"), numeric=True),
        Column("decision", ("decision",)),
    )
    rows = [
        _row(report, section, quantity, arm.name)
        for section in report.detail.sections
        for quantity in section.quantities
        for arm in report.study.arms
        if quantity.summaries[arm.name].n
    ]
    return Table("detail", "In detail", columns, tuple(rows), group="kind")


def _row(report: Report, section: Section, quantity: Quantity, arm: str) -> Row:
    found = quantity.summaries[arm]
    low, high = found.limits or (None, None)
    between = f"{words.number(low, DIGITS)} to {words.number(high, DIGITS)}" if found.limits else words.NOTHING
    difference = quantity.differences.get(arm)
    decision = "baseline" if difference is None else difference.decision
    cells = (
        Cell(section.name, (section.name,)),
        Cell(quantity.name, (quantity.name,)),
        Cell(arm, (arm,)),
        Cell(str(found.n), (found.n,)),
        level(found),
        Cell(between, (low, high)),
        change(difference),
        Cell(
            words.p_value(difference.p_holm if difference else None),
            (difference.p, difference.p_holm) if difference else (None, None),
        ),
        Cell(decision, (decision,)),
    )
    return Row(cells, group=section.kind, mark=decision)


def level(found: Summary) -> Cell:
    mean = words.number(found.mean, DIGITS)
    text = mean if found.sd is None else f"{mean} ± {words.number(found.sd, DIGITS)}"
    return Cell(text, (found.mean, found.sd))


def change(found: Difference | None) -> Cell:
    if found is None:
        return Cell(words.NOTHING, (None, None, None))
    interval = found.interval
    return Cell(
        words.difference(found, DIGITS), (found.mean, *((interval.low, interval.high) if interval else (None, None)))
    )


def overviews(report: Report) -> list[Table]:
    """Errors, sizes and IoU thresholds: for each kind the level of every arm, then its change."""
    return [
        _overview(report, name, own)
        for name in TITLES
        if (own := [section for section in report.detail.sections if section.name == name])
    ]


def errors(report: Report) -> list[Table]:
    """What errors cost, a table for each kind (box, mask): of a paper, where one of both would be too long."""
    sections = [section for section in report.detail.sections if section.name == "errors"]
    found = [(section.kind, _overview(report, "errors", [section])) for section in sections]
    return [replace(table, name=f"errors-{kind}", title=f"{table.title}: {kind}") for kind, table in found]


def _overview(report: Report, name: str, sections: Sequence[Section]) -> Table:
    names = list(dict.fromkeys(quantity.name for section in sections for quantity in section.quantities))
    columns = [Column("arm", ("arm",))]
    columns += [Column(SHORT.get(title, title), (title,), numeric=True, wide=title in ROOMY) for title in names]
    rows = []
    for section in sections:
        own = {quantity.name: quantity for quantity in section.quantities}
        for arm in report.study.arms:
            cells = [level(own[title].summaries[arm.name]) if title in own else _NONE for title in names]
            rows.append(_view(arm.name, cells, section.kind, "baseline" if arm.name == report.study.baseline else ""))
        for challenger in report.challengers:
            differences = [own[title].differences[challenger] if title in own else None for title in names]
            heading = f"{section.kind}, less {report.study.baseline}"
            rows.append(_view(challenger, [_decided(found) for found in differences], heading))
    return Table(name, TITLES[name], tuple(columns), tuple(rows), group="kind")


_NONE = Cell(words.NOTHING, (None,))


def _view(arm: str, cells: Iterable[Cell], group: str, mark: str = "") -> Row:
    return Row((Cell(arm, (arm,)), *(Cell(cell.text, cell.values[:1]) for cell in cells)), group=group, mark=mark)


def _decided(found: Difference | None) -> Cell:
    """The change, with a star where it is decided."""
    cell = change(found)
    star = "*" if found is not None and found.decision in (BETTER, WORSE) else ""
    return Cell(cell.text + star, cell.values)


def classes_shown(report: Report, arm: str, kind: str, most: int | None = None) -> list[Quantity]:
    """The classes that rose most, then those that fell most, by falling change; at most `most` at either end."""
    section = report.detail.section("classes", kind)
    if section is None:
        return []
    fell, rose = section.changed(arm)
    return [*rose[:most], *reversed(fell[:most])]


def classes(report: Report, most: int | None = None) -> Table | None:
    """The classes that changed most, each arm against the baseline: those that rose first. None where there are
    none. `most`: how many at either end; otherwise as many as `Section.changed` gives."""
    base = report.study.baseline
    rows = []
    for section in report.detail.sections:
        for arm in report.challengers if section.name == "classes" else []:
            for quantity in classes_shown(report, arm, section.kind, most):
                found = quantity.differences[arm]
                cells = (
                    Cell(quantity.name, (quantity.name,)),
                    level(quantity.summaries[base]),
                    level(quantity.summaries[arm]),
                    change(found),
                    Cell(found.decision, (found.decision,)),
                )
                rows.append(Row(cells, group=f"{section.kind}, {arm}", mark=found.decision))
    columns = (
        Column("class", ("class",)),
        Column(base, ("baseline", "baseline_sd"), numeric=True, wide=True),
        Column("arm", ("mean", "sd"), numeric=True, wide=True),
        Column("difference", ("difference", "difference_low", "difference_high"), numeric=True),
        Column("decision", ("decision",)),
    )
    return Table("classes", "Classes that changed most", columns, tuple(rows), group="kind and arm") if rows else None


def notes(detail: Detail) -> list[str]:
    """How the breakdown is to be read, and what it lacks."""
    gaps: dict[tuple[str, tuple[str, ...], int], list[str]] = {}
    for gap in detail.missing:
        gaps.setdefault((gap.section, gap.runs, gap.evaluated), []).append(gap.kind)
    return how_to_read(detail) + [_gap(*found, kinds) for found, kinds in gaps.items()]


def how_to_read(detail: Detail) -> list[str]:
    names = {section.name for section in detail.sections}
    lines = []
    if "errors" in names:
        lines.append(
            "Errors (TIDE, Bolya et al. 2020): how many points AP50 would rise without them. Cls: right place, wrong "
            "class; Loc: right class, IoU 0.1 to 0.5; Both; Dupe: found before; Bkg: on nothing (IoU up to 0.1); "
            "Miss: not found; FP, FN: all false positives, all false negatives. They do not add up."
        )
    if names:
        lines.append(
            "± after a difference is half of its 95 % interval"
            + (", over seeds alone for errors" if "errors" in names else "")
            + "; a star, or better and worse, means decided after Holm's correction over what stands in one row, or "
            "over all classes for classes. Those that changed most look larger than they are."
        )
    return lines


def _gap(section: str, runs: tuple[str, ...], evaluated: int, kinds: list[str]) -> str:
    what = f"{GAPS[section]} ({', '.join(kinds)})"
    if len(runs) == evaluated:
        return f"{what}: no run has it on record. `mrbench eval RUN` writes it."
    some = words.listed(list(runs)) if len(runs) <= 3 else f"{runs[0]} and {len(runs) - 1} more"
    share = f"{len(runs)} of {words.plural(evaluated, 'run')}"
    return f"{what}: not on record for {share} ({some}). `mrbench eval RUN` writes it."
