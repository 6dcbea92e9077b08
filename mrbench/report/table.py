"""The report's tables as rows of cells: the one source from which every format takes text and numbers."""

from dataclasses import dataclass

from mrbench.report import words
from mrbench.report.build import Answer, Report
from mrbench.report.collect import Arm
from mrbench.report.cost import costs
from mrbench.report.planning import MoreSeeds
from mrbench.report.run_record import RunRecord
from mrbench.report.statistics import Difference

Value = float | int | str | None
BAD_STATES = ("diverged", "failed")
P_VALUES = ("p_holm", "p", "p_welch", "p_permutation", "p_permutation_least")


@dataclass(frozen=True)
class Column:
    """`values` name what a cell of this column holds, for programs; `wide` ones need more than 80 columns."""

    title: str
    values: tuple[str, ...]
    numeric: bool = False
    wide: bool = False


@dataclass(frozen=True)
class Cell:
    """What a person reads, and the same at full precision (one entry for each of the column's `values`; the first is
    the one that is read, and sorted by)."""

    text: str
    values: tuple[Value, ...]


@dataclass(frozen=True)
class Row:
    """`group` heads the rows that share it (a metric); `mark` is its decision, `baseline` or a state."""

    cells: tuple[Cell, ...]
    group: str = ""
    mark: str = ""


@dataclass(frozen=True)
class Table:
    """`group` names what the rows' groups are, and their column in CSV."""

    name: str
    title: str
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    group: str = ""

    def records(self) -> list[dict[str, Value]]:
        """The rows for programs: one flat dict each."""
        found = []
        for row in self.rows:
            record: dict[str, Value] = {self.group: row.group} if self.group else {}
            for column, cell in zip(self.columns, row.cells, strict=True):
                record.update(zip(column.values, cell.values, strict=True))
            found.append(record)
        return found


def tables(report: Report) -> tuple[Table, ...]:
    """All tables of a report: accuracy, the literature where an arm names it, cost, and the runs one by one."""
    beside = published(report)
    return accuracy(report), *([beside] if beside else []), cost(report), runs(report)


def _text(text: str) -> Cell:
    return Cell(text, (text,))


def accuracy(report: Report) -> Table:
    """Arm by arm and metric by metric: mean, interval, difference to the baseline, decision, published value."""
    with_published = any(answer.published for answer in report.answers)
    columns = [
        Column("arm", ("arm",)),
        Column("seeds", ("seeds", "seeds_planned"), numeric=True),
        Column("mean ± sd", ("mean", "sd"), numeric=True),
        Column("95 % interval", ("low", "high"), numeric=True, wide=True),
        Column("difference", ("difference", "difference_low", "difference_high"), numeric=True),
        Column("p (Holm)", P_VALUES, numeric=True, wide=True),
        Column("decision", ("decision",)),
        Column("more seeds", ("more_seeds",), numeric=True, wide=True),
    ]
    if with_published:
        columns.append(Column("published", ("published", "published_change"), numeric=True))
    rows = [
        _accuracy_row(report, answer, arm, with_published) for answer in report.answers for arm in report.study.arms
    ]
    return Table("accuracy", "Accuracy", tuple(columns), tuple(rows), group="metric")


def _accuracy_row(report: Report, answer: Answer, arm: Arm, with_published: bool) -> Row:
    digits, found = answer.digits, answer.summaries[arm.name]
    low, high = found.limits or (None, None)
    mean = words.number(found.mean, digits)
    cells = [
        _text(arm.name),
        Cell(words.seeds(report, answer, arm), (found.n, len(arm.runs))),
        Cell(mean if found.sd is None else f"{mean} ± {words.number(found.sd, digits)}", (found.mean, found.sd)),
        Cell(
            f"{words.number(low, digits)} to {words.number(high, digits)}" if found.limits else words.NOTHING,
            (low, high),
        ),
    ]
    if arm.name == report.study.baseline:
        mark = "baseline"
        cells += [Cell(words.NOTHING, (None, None, None)), Cell(words.NOTHING, (None,) * len(P_VALUES)), _text(mark)]
        cells.append(Cell(words.NOTHING, (None,)))
    else:
        difference = answer.differences[arm.name]
        mark = difference.decision
        limits = (difference.interval.low, difference.interval.high) if difference.interval else (None, None)
        cells += [
            Cell(words.difference(difference, digits), (difference.mean, *limits)),
            _p_values(difference),
            _text(mark if found.n else "no result"),
            _more_seeds(answer.more_seeds.get(arm.name)),
        ]
    if with_published:
        value, change = answer.published.get(arm.name), answer.published_changes.get(arm.name)
        text = words.number(value, 1) + (f" ({words.signed(change, 1)})" if change is not None else "")
        cells.append(Cell(text, (value, change)))
    return Row(tuple(cells), group=words.metric_name(answer.metric), mark=mark)


def _p_values(found: Difference) -> Cell:
    flips = found.permutation
    values = (found.p_holm, found.p, found.p_welch, flips.p if flips else None, flips.least if flips else None)
    return Cell(words.p_value(found.p_holm), values)


def _more_seeds(need: MoreSeeds | None) -> Cell:
    return Cell(words.more_seeds(need), (need.seeds if need else None,))


def cost(report: Report) -> Table:
    """What each arm's runs took, how many went wrong, and which arms no other one beats in accuracy and cost."""
    all_costs = costs(report)
    metered = any(found.energy is not None for found in all_costs.values())
    columns = (
        Column("arm", ("arm",)),
        Column("runs", ("runs", *BAD_STATES)),
        Column("images/s", ("images_per_second",), numeric=True),
        Column("peak memory", ("peak_memory",), numeric=True),
        Column("time a run", ("hours",), numeric=True),
        Column("device time", ("device_hours",), numeric=True, wide=True),
        Column("parameters", ("parameters",), numeric=True, wide=True),
        *([Column("energy", ("energy_joules",), numeric=True, wide=True)] if metered else []),
        Column("unbeaten", ("unbeaten",)),
    )
    rows = []
    for arm in report.study.arms:
        found = all_costs[arm.name]
        cells = (
            _text(arm.name),
            Cell(words.states(arm), (words.states(arm), *(arm.count(state) for state in BAD_STATES))),
            Cell(words.speed(found.images_per_second), (found.images_per_second,)),
            Cell(words.gibibytes(found.peak_memory), (found.peak_memory,)),
            Cell(words.duration(found.hours), (found.hours,)),
            Cell(words.duration(found.device_hours), (found.device_hours,)),
            Cell(f"{found.parameters:,}" if found.parameters else words.NOTHING, (found.parameters,)),
            *([Cell(words.kilowatt_hours(found.energy), (found.energy,))] if metered else []),
            _yes_or_no(found.unbeaten),
        )
        rows.append(Row(cells, mark="baseline" if arm.name == report.study.baseline else ""))
    return Table("cost", "Cost", columns, tuple(rows))


def _yes_or_no(value: bool | None) -> Cell:
    return Cell(words.NOTHING if value is None else "yes" if value else "no", (value,))


def published(report: Report) -> Table | None:
    """The literature beside ours; None where no arm names a row. Values are compared where that says something."""
    columns = (
        Column("arm", ("arm", "row")),
        Column("ours", ("mean",), numeric=True),
        Column("published", ("published",), numeric=True),
        Column("our change", ("difference",), numeric=True),
        Column("published change", ("published_change",), numeric=True),
        Column("change less theirs", ("gap", "gap_low", "gap_high"), numeric=True),
        Column("reproduced", ("reproduced", "why_not")),
    )
    rows = []
    for answer in report.answers:
        for name, found in answer.beside.items():
            ours, difference = answer.summaries[name].mean, answer.differences.get(name)
            half = None if found.gap_high is None or found.gap is None else found.gap_high - found.gap
            gap = words.signed(found.gap, 1) + (f" ± {words.number(half, 1)}" if half is not None else "")
            said = found.why_not if found.reproduced is None else "yes" if found.reproduced else "no"
            change = difference.mean if difference else None
            cells = (
                Cell(name, (name, found.row)),
                Cell(words.number(ours, answer.digits), (ours,)),
                Cell(words.number(found.value, 1), (found.value,)),
                Cell(words.signed(change, answer.digits), (change,)),
                Cell(words.signed(found.change, 1), (found.change,)),
                Cell(gap, (found.gap, found.gap_low, found.gap_high)),
                Cell(said or words.NOTHING, (found.reproduced, found.why_not)),
            )
            mark = "baseline" if name == report.study.baseline else ""
            rows.append(Row(cells, group=words.metric_name(answer.metric), mark=mark))
    return Table("published", "Beside the literature", columns, tuple(rows), group="metric") if rows else None


def runs(report: Report) -> Table:
    """Every run, with a result or without."""
    columns = (
        Column("arm", ("arm",)),
        Column("seed", ("seed",), numeric=True),
        *(Column(words.metric_name(answer.metric), (answer.metric,), numeric=True) for answer in report.answers),
        Column("state", ("state", "problem")),
        Column("images/s", ("images_per_second",), numeric=True),
        Column("run", ("run",)),
    )
    rows = tuple(Row(_run_cells(report, run), mark="" if run.metrics else run.state) for run in report.study.runs)
    return Table("runs", "Runs", columns, rows)


def _run_cells(report: Report, run: RunRecord) -> tuple[Cell, ...]:
    scores = [(answer.digits, run.metrics.get(answer.metric)) for answer in report.answers]
    return (
        _text(run.arm),
        Cell(str(run.own_seed), (run.own_seed,)),
        *(Cell(words.number(score, digits), (score,)) for digits, score in scores),
        Cell(run.state + (f": {run.problem}" if run.problem else ""), (run.state, run.problem)),
        Cell(words.speed(run.images_per_second), (run.images_per_second,)),
        Cell(run.run_id or words.NOTHING, (run.run_id,)),
    )
