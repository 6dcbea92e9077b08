"""The report's tables as rows of cells: the one source from which every format takes text and numbers."""

from dataclasses import dataclass

from mrbench.report import words
from mrbench.report.build import Answer, Report
from mrbench.report.collect import Arm, RunRecord
from mrbench.report.planning import MoreSeeds
from mrbench.report.statistics import Difference

Value = float | int | str | None
P_VALUES = ("p", "p_holm", "p_welch", "p_permutation", "p_permutation_least")


@dataclass(frozen=True)
class Column:
    """`values` name what a cell of this column holds, for programs; `wide` ones need more than 80 columns."""

    title: str
    values: tuple[str, ...]
    numeric: bool = False
    wide: bool = False


@dataclass(frozen=True)
class Cell:
    """What a person reads, and the same at full precision (one entry for each of the column's `values`)."""

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
    """All tables of a report: accuracy, cost, and the runs one by one."""
    return accuracy(report), cost(report), runs(report)


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
    interval = found.interval
    mean = words.number(found.mean, digits)
    cells = [
        _text(arm.name),
        Cell(words.seeds(report, answer, arm), (found.n, len(arm.runs))),
        Cell(mean if found.sd is None else f"{mean} ± {words.number(found.sd, digits)}", (found.mean, found.sd)),
        Cell(
            f"{words.number(interval.low, digits)} to {words.number(interval.high, digits)}"
            if interval
            else words.NOTHING,
            (interval.low, interval.high) if interval else (None, None),
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
    values = (found.p, found.p_holm, found.p_welch, flips.p if flips else None, flips.least if flips else None)
    return Cell(words.p_value(found.p_holm), values)


def _more_seeds(need: MoreSeeds | None) -> Cell:
    return Cell(words.more_seeds(need), (need.seeds if need else None,))


def cost(report: Report) -> Table:
    """What each arm's runs took."""
    columns = (
        Column("arm", ("arm",)),
        Column("runs", ("runs",)),
        Column("images/s", ("images_per_second",), numeric=True),
        Column("peak memory", ("peak_memory",), numeric=True),
        Column("time a run", ("hours",), numeric=True),
    )
    rows = []
    for arm in report.study.arms:
        speed = _mean([run.images_per_second for run in arm.runs])
        memory = max((run.peak_memory for run in arm.runs if run.peak_memory is not None), default=None)
        hours = _mean([run.hours for run in arm.runs if run.state == "completed"])
        cells = (
            _text(arm.name),
            _text(words.states(arm)),
            Cell(words.speed(speed), (speed,)),
            Cell(words.gibibytes(memory), (memory,)),
            Cell(words.duration(hours), (hours,)),
        )
        rows.append(Row(cells, mark="baseline" if arm.name == report.study.baseline else ""))
    return Table("cost", "Cost", columns, tuple(rows))


def _mean(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


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
        Cell(str(run.seed), (run.seed,)),
        *(Cell(words.number(score, digits), (score,)) for digits, score in scores),
        Cell(run.state + (f": {run.problem}" if run.problem else ""), (run.state, run.problem)),
        Cell(words.speed(run.images_per_second), (run.images_per_second,)),
        Cell(run.run_id or words.NOTHING, (run.run_id,)),
    )
