"""A benchmark record in words: mean, spread, range and a last line that compares, as hyperfine tells it."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

from mrbench.bench.budget import time_text
from mrbench.bench.largest_batch import Search
from mrbench.bench.matrix import Case, alike, label
from mrbench.bench.process import size_text
from mrbench.bench.record import Measurement, Peer, Plan, Record, Split, Work
from mrbench.bench.statistics import Latency, Ratio, ratio
from mrbench.bench.telemetry import Telemetry

UNIT = "images/s"


def heading(record: Record) -> str:
    """What was measured, on what."""
    plan, device, hardware = record.plan, record.device, record.provenance["hardware"]
    sizes = dict.fromkeys("x".join(map(str, case.image_size)) for case in plan.cases if case.image_size)
    inputs = f"{', '.join(sizes)}{', ' if sizes else ''}{plan.instances} instances an image"
    if plan.inputs == "data":
        inputs = "pictures of the data set"
    name = (
        device.get("name") or f"{hardware['cpu']} ({device['threads']} thread{'s' if device['threads'] > 1 else ''})"
    )
    packages = record.provenance["packages"]
    return f"{', '.join(plan.configs)} on {name}, torch {packages.get('torch', '?')}; {inputs}"


def measurement_text(row: Measurement, title: str = "") -> str:
    """One row as a small block of lines, under its label or another title."""
    lines = [title or row.label]
    if row.state != "measured":
        lines.append(f"  {STATES[row.state]}: {row.note}")
        return "\n".join(lines)
    rate, step, warmup = row.images_per_second, row.step_seconds, row.warmup
    assert rate is not None
    assert step is not None
    assert warmup is not None
    if rate.std is None:
        lines.append(f"  {UNIT}:  {number(rate.mean)}    (one block: no spread)")
    else:
        interval = ""
        if rate.interval is not None:
            interval = f"    95 % interval {' … '.join(number(bound) for bound in rate.interval)}"
        lines.append(f"  {UNIT} (mean ± σ):   {number(rate.mean)} ± {number(rate.std)}{interval}")
        blocks = f"{rate.count} blocks of {row.steps_per_block} steps, after {warmup.steps} of warm-up"
        lines.append(f"  Range (min … max):     {number(rate.low)} … {number(rate.high)}    {blocks}")
    lines.append(f"  Step (median):         {1000 * step.median:.4g} ms")
    if row.latency:
        lines.append(f"  Latency:               {_latency(row.latency)}")
    if row.split:
        lines.append(f"  Of a step:             {_parts(row.split)}")
    if row.work:
        lines.append(f"  Work:                  {_work(row.work)}")
    if row.peer:
        lines.append(f"  Peer:                  {peer_text(row.peer)}")
    if row.telemetry and (seen := _telemetry(row.telemetry)):
        lines.append(f"  Device:                {seen}")
    if row.peak_memory:
        told = ", ".join(f"{size_text(size)} {kind}" for kind, size in row.peak_memory.items())
        lines.append(f"  Peak memory:           {told}")
    if row.facts:
        lines.append(f"  An image has:          {', '.join(_facts(row))}")
    lines += [f"  Warning: {warning}" for warning in row.warnings]
    return "\n".join(lines)


def _latency(found: Latency) -> str:
    told = {"50": found.p50, "90": found.p90, "99": found.p99}
    words = [f"{name} % within {1000 * value:.4g} ms" for name, value in told.items() if value is not None]
    few = [name for name, value in told.items() if value is None]
    lacking = f"; too few for {' and '.join(few)} %" if few else ""
    return f"{', '.join(words)} ({found.steps} steps{lacking})"


def _parts(split: Split) -> str:
    """The parts' shares, the largest first."""
    shares = [(value / split.step_seconds, name.replace("_", " ")) for name, value in split.parts.items()]
    return ", ".join(f"{name} {100 * share:.0f} %" for share, name in sorted(shares, reverse=True) if share >= 0.005)


def peer_text(peer: Peer) -> str:
    """The paired ratio, its interval, and how it came about."""
    times = peer.times_as_fast
    if times is None:
        return f"{peer.name} failed: {peer.note}"
    within = f" (95 % interval {' … '.join(f'{bound:.3f}' for bound in times.interval)})" if times.interval else ""
    return f"{times.value:.3f} times as fast as {peer.name}{within}; {len(times.rounds)} rounds in turns"


def _work(work: Work) -> str:
    gigas = (work.flops_per_image, work.flops_per_second, work.peak_flops_per_second, work.peak_copy_bytes_per_second)
    image, rate, peak, copied = (number(value / 1e9) for value in gigas)
    return (
        f"{image} GFLOP an image, {rate} GFLOP/s: {100 * work.fraction:.0f} % of a matrix product's {peak} "
        f"(copying {copied} GB/s)"
    )


def _telemetry(seen: Telemetry) -> str:
    words = []
    if seen.clock:
        low, middle, high = (f"{value:.0f}" for value in seen.clock)
        of = f" of {seen.highest_clock:.0f}" if seen.highest_clock else ""
        words.append(f"{middle} MHz ({low} … {high}{of})")
    words += [f"{seen.temperature:.0f} °C"] if seen.temperature is not None else []
    words += [f"{seen.power:.0f} W"] if seen.power is not None else []
    words += [f"{number(seen.joules_per_image)} J an image"] if seen.joules_per_image is not None else []
    return ", ".join(words)


STATES = {
    "memory": "does not fit into memory",
    "unsupported": "not on this device",
    "time": "gave up",
    "failed": "failed",
}


def _facts(row: Measurement) -> Iterator[str]:
    names = {
        "instances_per_image": "instances",
        "rois_per_image": "RoIs",
        "positive_rois_per_image": "of them positive",
        "detections_per_image": "detections",
    }
    for key, name in names.items():
        if key in row.facts:
            yield f"{row.facts[key]:.4g} {name}"


def search_text(search: Search, plan: Plan) -> str:
    """One line: the answer, what it was bounded by, and how it was found."""
    kind = ", activation checkpointing" if search.checkpointing else ""
    name = f"Largest batch, {label(search.case, plan.cases)}{kind}:"
    if search.note:
        return f"{name} not found: {search.note}"
    if search.largest is None:
        return f"{name} not found yet"
    everything = "all that the device has" if plan.device == "cuda" else "all that was free"
    limit = size_text(plan.memory_limit) if plan.memory_limit else everything
    tries = f"{len(search.tries)} tries" if len(search.tries) > 1 else "1 try"
    how = f"memory: {limit}, {100 * plan.headroom:.0f} % kept free; {tries} of 3 steps"
    if (worst := search.worst) is not None:
        how += f" on {'x'.join(map(str, worst.image_size))}"
        how += f" with {worst.instances} instances" if search.case.mode == "train" else ""
    if search.largest == 0:
        why = next((t.why for t in search.tries if t.ended != "fits"), "")
        return f"{name} not even one image fits ({how}): {why}"
    bounds = {"time": "; a larger one took too long to try", "most": "; larger ones were not tried"}
    return f"{name} {search.largest}  ({how}{bounds.get(search.bound or '', '')})"


def left_out_lines(plan: Plan, search_asked: bool) -> list[str]:
    """What a time budget had no room for, the search of the largest batch too where it was `search_asked`."""
    everything = [*plan.cases, *plan.left_out]
    rows = [f"Left out for want of time: {label(case, everything)}" for case in plan.left_out]
    if plan.asked_repeats is not None:
        rows.append(f"{plan.repeats} blocks a row instead of {plan.asked_repeats}, for want of time")
    if search_asked and not plan.largest_batch:
        rows.append("Left out for want of time: the search of the largest batch")
    return rows


def remaining_text(done: int, rows: int, seconds: Sequence[float]) -> str:
    """How many rows are done and about how long the rest takes, from the `seconds` of those measured until now."""
    if done >= rows or not seconds:
        return f"{done} of {rows} rows" if done < rows else ""
    left = (rows - done) * sum(seconds) / len(seconds)
    return f"{done} of {rows} rows, about {time_text(left)} left"


def comparison_lines(rows: list[Measurement]) -> list[str]:
    """Every row against the first of those that differ from it in one thing only, the faster one named first; and
    what more devices are worth."""
    lines = []
    done = [row for row in rows if row.images_per_second is not None]
    for axis, name in AXES.items():
        for other in done:
            first = next(row for row in done if alike(row.case, other.case, axis))
            if first is other:
                continue
            fast, slow = sorted((first, other), key=_rate, reverse=True)
            same = label(replace(other.case, **SHARED[axis]), [row.case for row in done])
            lines.append(f"{same}: {name(fast.case)} {_compared(fast, slow)} {name(slow.case)}")
    lines += [_scaling(row, done) for row in done if row.case.devices > 1 and _alone(row, done)]
    cases = [row.case for row in done]
    return lines + [
        f"{label(row.case, cases)}: mrbench is {peer_text(row.peer)}"
        for row in done
        if row.peer and row.peer.times_as_fast
    ]


AXES: dict[str, Callable[[Case], str]] = {
    "precision": lambda case: str(case.precision),
    "model": lambda case: case.model,
    "channels_last": lambda case: "channels-last" if case.channels_last else "channels-first",
    "compile": lambda case: "compiled" if case.compile else "uncompiled",
}
# What the rows' common label leaves out.
SHARED: dict[str, dict[str, Any]] = {
    "precision": {"precision": None},
    "model": {"model": ""},
    "channels_last": {"channels_last": False},
    "compile": {"compile": False},
}


def _alone(row: Measurement, done: list[Measurement]) -> Measurement | None:
    """The same on one device."""
    return next((r for r in done if r.case.devices == 1 and alike(r.case, row.case, "devices")), None)


def _scaling(row: Measurement, done: list[Measurement]) -> str:
    one = _alone(row, done)
    assert one is not None
    times = efficiency(row, one)
    error = "" if times.error is None else f" ± {100 * times.error:.0f}"
    title = label(replace(row.case, devices=1), [r.case for r in done])
    return f"{title}: {row.case.devices} devices work at {100 * times.value:.0f}{error} % of as many times one"


def efficiency(several: Measurement, one: Measurement) -> Ratio:
    """Images a second of N devices over N times those of one: 1 where nothing is lost. The images a device are the
    same, so the batch grows with the devices (weak scaling)."""
    assert several.images_per_second is not None
    assert one.images_per_second is not None
    times = ratio(several.images_per_second, one.images_per_second)
    count = several.case.devices
    return Ratio(times.value / count, None if times.error is None else times.error / count)


def _rate(row: Measurement) -> float:
    assert row.images_per_second is not None
    return row.images_per_second.mean


def _compared(fast: Measurement, slow: Measurement) -> str:
    assert fast.images_per_second is not None
    assert slow.images_per_second is not None
    times = ratio(fast.images_per_second, slow.images_per_second)
    error = "" if times.error is None else f" ± {times.error:.2f}"
    return f"is {times.value:.2f}{error} times as fast as"


def number(value: float) -> str:
    """Three to four significant digits, without exponents."""
    if abs(value) >= 1000:
        return f"{value:.0f}"
    return f"{value:.3f}" if abs(value) < 10 else f"{value:.1f}"
