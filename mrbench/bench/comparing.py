"""A benchmark against an earlier one of the same machine: what is faster, slower, or inside the noise."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import yaml

from mrbench.bench.matrix import Case, label
from mrbench.bench.record import PROTOCOL, Measurement, Record
from mrbench.bench.statistics import FEWEST, Summary
from mrbench.errors import UserError
from mrbench.evaluation.student import critical

FASTER, SLOWER, INSIDE, UNKNOWN = "faster", "slower", "inside the noise", "not compared"
SESSION_NOISE = 0.02  # standard deviation of a whole measurement that its blocks do not show, as a share
ALARMS = 0.05  # chance that any of the rows is called faster or slower where nothing has changed
OF_THE_DEVICE = ("type", "name", "memory", "capability", "threads")
OF_THE_HOST = ("cpu", "cores")
OF_THE_PLAN = ("inputs", "instances", "positives")


@dataclass
class Change:
    """One row's images a second over what they were."""

    case: Case
    verdict: str
    times: float | None = None  # 1: as before
    interval: list[float] | None = None
    note: str = ""


def check_comparable(earlier: Record, record: Record) -> None:
    """Raises UserError, naming what differs, where the two were not measured alike, or not on such a machine.

    Software may differ: that is mostly what a comparison is for.
    """
    found = list(_differences(earlier, record))
    if found:
        raise UserError(
            f"The earlier record was not measured like this one: {'; '.join(found)}",
            "Compare with one of this machine and protocol, or give --compare-anyway.",
        )


def _differences(earlier: Record, record: Record) -> Iterator[str]:
    if earlier.protocol != PROTOCOL:
        yield f"protocol {earlier.protocol}, now {PROTOCOL}"
    sides = [(r.device, r.provenance.get("hardware", {})) for r in (earlier, record)]
    for place, names in ((0, OF_THE_DEVICE), (1, OF_THE_HOST)):
        for name in names:
            then, now = (side[place].get(name) for side in sides)
            if then != now:
                yield f"{name} {then}, now {now}"
    for name in OF_THE_PLAN:
        then, now = getattr(earlier.plan, name), getattr(record.plan, name)
        if then != now:
            yield f"{name} {then}, now {now}"
    for model in earlier.plan.configs.keys() & record.plan.configs.keys():
        then, now = (_flat(yaml.safe_load(r.plan.configs[model])) for r in (earlier, record))
        # A key that only one has came with another version of this program.
        for key in sorted(then.keys() & now.keys()):
            if then[key] != now[key]:
                yield f"{key} {then[key]}, now {now[key]}"


def _flat(node: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Dotted keys; without the place where pictures lie."""
    found: dict[str, Any] = {}
    for key, value in node.items():
        if isinstance(value, Mapping):
            found |= _flat(value, f"{prefix}{key}.")
        else:
            found[prefix + key] = value
    found.pop("data.root", None)
    return found


def changes(earlier: Record, record: Record, session_noise: float = SESSION_NOISE) -> list[Change]:
    """Every row of `record` against the same one of `earlier`.

    Each is held to `ALARMS` divided by the number of rows (Bonferroni), so that a table of many does not cry wolf.
    """
    pairs = [(row, next((m for m in earlier.measurements if m.case == row.case), None)) for row in record.measurements]
    count = sum(then is not None for _, then in pairs)
    return [_change(then, row, session_noise, 1 - ALARMS / max(count, 1)) for row, then in pairs]


def _change(then: Measurement | None, now: Measurement, session_noise: float, confidence: float) -> Change:
    if then is None or then.images_per_second is None:
        return Change(now.case, UNKNOWN, note="the earlier record has no figure for it")
    if now.images_per_second is None:
        verdict = SLOWER if now.state in ("memory", "time") else UNKNOWN
        return Change(now.case, verdict, note=f"no figure now: {now.note}")
    old, new = then.images_per_second, now.images_per_second
    times = new.mean / old.mean
    interval = ratio_interval(old, new, session_noise, confidence)
    if interval is None:
        return Change(now.case, UNKNOWN, times, note=f"fewer than {FEWEST} blocks")
    verdict = FASTER if interval[0] > 1 else SLOWER if interval[1] < 1 else INSIDE
    return Change(now.case, verdict, times, interval)


def ratio_interval(
    old: Summary, new: Summary, session_noise: float = SESSION_NOISE, confidence: float = 0.95
) -> list[float] | None:
    """Of the ratio of the means, by Welch's unequal variances on the logarithm (Welch 1947), with the variance between
    sessions, twice `session_noise` squared, as known. None with too few blocks.

    Blocks of one process share its memory layout, clock and neighbours; sessions do not. Their spread alone would call
    most repetitions different.
    """
    if old.spread is None or new.spread is None or min(old.count, new.count) < FEWEST:
        return None
    parts = [(side.spread or 0.0) ** 2 / side.count for side in (old, new)]
    variance = sum(parts) + 2 * session_noise**2
    middle = math.log(new.mean / old.mean)
    if variance == 0:
        return [math.exp(middle)] * 2
    uncertain = sum(part**2 / (side.count - 1) for part, side in zip(parts, (old, new), strict=True))
    freedom = variance**2 / uncertain if uncertain else 1e6
    half = critical(min(freedom, 1e6), confidence) * math.sqrt(variance)
    return [math.exp(middle - half), math.exp(middle + half)]


def change_lines(found: list[Change], session_noise: float) -> list[str]:
    """In words, one line a row."""
    cases = [change.case for change in found]
    lines = []
    for change in found:
        told = change.note
        if change.times is not None:
            within = f" ({' … '.join(f'{100 * (b - 1):+.1f}' for b in change.interval)} %)" if change.interval else ""
            told = f"{100 * (change.times - 1):+.1f} %{within}{f'; {told}' if told else ''}".replace("-", "−")
        lines.append(f"{label(change.case, cases)}: {change.verdict}, {told}")
    noise = f"Noise between sessions is counted as {100 * session_noise:g} % of each (--session-noise)."
    return [*lines, noise]
