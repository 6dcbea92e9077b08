"""docs/ablations.md: the studies that come along, their arms at both scales, and the published rows they answer to."""

from collections.abc import Mapping, Sequence

from mrbench.study.study import SCALES, Arm, Study

HEAD = """# Ablations

The studies of [ablations](../ablations), one file each: a question, a baseline, and the arms that are compared with
it. `mrbench sweep NAME` runs one, `mrbench sweep NAME --dry-run` says what would run, what exists already and what the
rest will cost, and `mrbench report NAME-SCALE` shows every arm beside the baseline with intervals.

Most have two scales. `--scale full` is the published recipe, and there an arm is compared with the published row that
it names; its run is the recipe's own ([recipes.md](recipes.md)). `--scale small` asks the same question of a small
network on the embedded pictures, in minutes on two cores or one GPU. Small is what runs where `--scale` is left out,
with a GPU as without: hundreds of GPU hours should begin only where they are asked for by name. The two have records
of their own, `NAME-small` and `NAME-full`.

A study of your own is a file like these; [sweeps.md](sweeps.md#an-ablation-file) has all that one may hold. A mistake
is told with the file and the line. `mrbench studies show NAME` prints what this page has of a study.

This page is written by `mrbench studies table -o docs/ablations.md`. AP is what was published, in percent.
"""


def page(studies: Sequence[Study], published: Mapping[str, Mapping[str, float]]) -> str:
    """The page's Markdown; `published` are the metrics (`box/AP` ...) of the published rows, by their ids."""
    lines = [HEAD, "| study | question | arms x seeds | scales | published rows |", "|---|---|---:|---|---:|"]
    for study in studies:
        size = f"{len(study.arms)} x {len(study.seeds)}"
        rows = sum(arm.published is not None for arm in study.arms)
        link = f"[{study.name}](#{study.name.lower()})"
        lines.append(f"| {link} | {study.question} | {size} | {', '.join(study.scales) or 'one'} | {rows or ''} |")
    for study in studies:
        lines += ["", *_section(study, published)]
    return "\n".join(lines) + "\n"


def _section(study: Study, published: Mapping[str, Mapping[str, float]]) -> list[str]:
    lines = [f"## {study.name}", "", f"**{study.title}.** {study.question}", ""]
    lines += [f"{study.note}", ""] if study.note else []
    for scale in (s for s in SCALES if s in study.scales):
        at = study.scales[scale]
        base = f" on {_code((*study.base, *at.base))}" if study.base or at.base else ""
        without = f" Without {', '.join(at.without)}." if at.without else ""
        lines.append(f"- {scale}{base}. {at.note}{without}")
    if not study.scales and study.base:
        lines.append(f"- on {_code(study.base)}")
    columns = ("all", *(s for s in SCALES if any(s in arm.at_scales for arm in study.arms)))
    heads = ["changes", *(f"at {scale}" for scale in columns[1:])]
    lines += ["", f"| arm | {' | '.join(heads)} | published | |", f"|---|{'---|' * len(heads)}---|---|"]
    for arm in study.arms:
        name = f"**{arm.name}** (baseline)" if arm.name == study.baseline else arm.name
        changed = [_code(arm.overrides), *(_code(arm.at_scales.get(scale, ())) for scale in columns[1:])]
        lines.append(f"| {name} | {' | '.join(changed)} | {told_row(arm, published)} | {arm.note} |")
    return lines


def _code(overrides: Sequence[str]) -> str:
    return " ".join(f"`{text}`" for text in overrides)


def told_row(arm: Arm, published: Mapping[str, Mapping[str, float]]) -> str:
    """The published row that an arm answers to, with its AP; empty where there is none."""
    if arm.published is None:
        return ""
    metrics = published[arm.published]
    numbers = [(kind, metrics[f"{kind}/AP"]) for kind in ("box", "mask", "keypoint") if f"{kind}/AP" in metrics]
    told = (f"{kind} {ap:.1f}" if round(ap, 1) == ap else f"{kind} {ap:g}" for kind, ap in numbers)
    return f"{arm.published}: {', '.join(told)}"
