"""A benchmark record in words: mean, spread, range and a last line that compares, as hyperfine tells it."""

from collections.abc import Iterator

from mrbench.bench.largest_batch import Search
from mrbench.bench.process import size_text
from mrbench.bench.record import Measurement, Plan, Record
from mrbench.bench.statistics import ratio

UNIT = "images/s"


def heading(record: Record) -> str:
    """What was measured, on what."""
    plan, device, hardware = record.plan, record.device, record.provenance["hardware"]
    height, width = plan.image_size
    inputs = f"{height}x{width}, {plan.instances} instances an image"
    if plan.inputs == "data":
        inputs = "pictures of the data set"
    name = (
        device.get("name") or f"{hardware['cpu']} ({device['threads']} thread{'s' if device['threads'] > 1 else ''})"
    )
    packages = record.provenance["packages"]
    return f"{plan.model} on {name}, torch {packages.get('torch', '?')}; {inputs}"


def measurement_text(row: Measurement) -> str:
    """One row as a small block of lines."""
    lines = [row.label]
    if row.state != "measured":
        lines.append(f"  {STATES[row.state]}: {row.note}")
        return "\n".join(lines)
    rate, step, warmup = row.images_per_second, row.step_seconds, row.warmup
    assert rate is not None
    assert step is not None
    assert warmup is not None
    if rate.std is None or rate.interval is None:
        lines.append(f"  {UNIT}:  {number(rate.mean)}    (one block: no spread)")
    else:
        interval = " … ".join(number(bound) for bound in rate.interval)
        lines.append(f"  {UNIT} (mean ± σ):   {number(rate.mean)} ± {number(rate.std)}    95 % interval {interval}")
        blocks = f"{rate.count} blocks of {row.steps_per_block} steps, after {warmup.steps} of warm-up"
        lines.append(f"  Range (min … max):     {number(rate.low)} … {number(rate.high)}    {blocks}")
    lines.append(f"  Step (median):         {1000 * step.median:.4g} ms")
    if row.peak_memory:
        told = ", ".join(f"{size_text(size)} {kind}" for kind, size in row.peak_memory.items())
        lines.append(f"  Peak memory:           {told}")
    if row.facts:
        lines.append(f"  An image has:          {', '.join(_facts(row))}")
    lines += [f"  Warning: {warning}" for warning in row.warnings]
    return "\n".join(lines)


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
    name = f"Largest batch, {search.mode} {search.precision}:"
    if search.note:
        return f"{name} not found: {search.note}"
    if search.largest is None:
        return f"{name} not found yet"
    limit = size_text(plan.memory_limit) if plan.memory_limit else "all that the device has"
    how = f"memory: {limit}, {100 * plan.headroom:.0f} % kept free; {len(search.tries)} tries of 3 steps"
    if search.largest == 0:
        why = next((t.why for t in search.tries if t.ended != "fits"), "")
        return f"{name} not even one image fits ({how}): {why}"
    bounds = {"time": "; a larger one took too long to try", "most": "; larger ones were not tried"}
    return f"{name} {search.largest}  ({how}{bounds.get(search.bound or '', '')})"


def comparison_lines(rows: list[Measurement]) -> list[str]:
    """For each mode and batch size, every later precision against the first, the faster one named first."""
    lines = []
    done = [row for row in rows if row.images_per_second is not None]
    for mode, batch in dict.fromkeys((row.mode, row.batch) for row in done):
        group = [row for row in done if (row.mode, row.batch) == (mode, batch)]
        for other in group[1:]:
            fast, slow = sorted((group[0], other), key=_rate, reverse=True)
            lines.append(f"{mode}, batch {batch}: {_compared(fast, slow)}")
    return lines


def _rate(row: Measurement) -> float:
    assert row.images_per_second is not None
    return row.images_per_second.mean


def _compared(fast: Measurement, slow: Measurement) -> str:
    assert fast.images_per_second is not None
    assert slow.images_per_second is not None
    times = ratio(fast.images_per_second, slow.images_per_second)
    error = "" if times.error is None else f" ± {times.error:.2f}"
    return f"{fast.precision} is {times.value:.2f}{error} times as fast as {slow.precision}"


def number(value: float) -> str:
    """Three to four significant digits, without exponents."""
    if abs(value) >= 1000:
        return f"{value:.0f}"
    return f"{value:.3f}" if abs(value) < 10 else f"{value:.1f}"
