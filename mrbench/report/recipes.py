"""docs/recipes.md: all recipes with their published numbers, and the published rows that have none."""

from collections.abc import Mapping, Sequence

from mrbench.config.recipes import Recipe
from mrbench.config.schema import RunConfig
from mrbench.report import published

# Published rows that no recipe trains, and why.
EXCLUDED = {
    "lambda/cascade": "a page that names the architecture and the number, but neither data nor schedule nor code",
    "lsj/text/copy_paste_paper": "another paper's number (Ghiasi et al. 2021), from another framework, that the "
    "source sets beside its own; the training that answers it is lsj_r50_fpn_400ep",
}
COLUMNS = ("recipe", "what it is", "box", "mask", "keypoint", "iterations x images", "parameters", "published in")
KINDS = ("box/AP", "mask/AP", "keypoint/AP")
HEAD = """# Recipes

Every published training of [results/published/accuracy.csv](../results/published/accuracy.csv) as a recipe:
`mrbench train recipe=NAME data.root=FOLDER`. `mrbench recipes show NAME` tells where a recipe's values come from, what
it starts from and what it changes. The files are in [conf/recipe](../conf/recipe);
[architectures.md](architectures.md) says what their networks are built of. AP is what the source published on the
split that its row names, in percent. Nothing here was trained with mrbench but what says so.

This page is written by `mrbench recipes table -o docs/recipes.md`.
"""


def network(recipe: Recipe) -> str:
    """What the source calls the network of a recipe's published results; empty where nothing is published."""
    rows = published.accuracy()
    return next((rows[result.row].architecture for result in recipe.published if result.row in rows), "")


def published_ap(recipe: Recipe) -> list[str]:
    """Box, mask and keypoint AP with the digits of the source, empty where not published."""
    return [_number(recipe.metrics[kind]) if kind in recipe.metrics else "" for kind in KINDS]


def _number(value: float) -> str:
    return f"{value:.1f}" if round(value, 1) == value else f"{value:g}"


def by_family(recipes: Sequence[Recipe]) -> dict[str, list[Recipe]]:
    """In the order of the families' names, our own last."""
    names = sorted({r.family for r in recipes}, key=lambda name: (name.startswith("mrbench"), name))
    return {name: [r for r in recipes if r.family == name] for name in names}


def schedule_of(config: RunConfig) -> str:
    """Iterations x images a batch, and when the rate falls, as `90k x 16 (60k, 80k)`."""
    schedule = config.schedule
    falls = ", ".join(map(_short, schedule.milestones)) if schedule.decay == "steps" else schedule.decay
    return f"{_short(schedule.iterations)} x {schedule.images_per_batch} ({falls})"


def _short(count: int) -> str:
    return f"{count / 1000:g}k" if count >= 10000 and count % 100 == 0 else str(count)


def page(recipes: Sequence[Recipe], configs: Mapping[str, RunConfig]) -> str:
    """The page's Markdown; `configs` are the recipes composed, by name."""
    lines = [HEAD]
    for family, members in by_family(recipes).items():
        lines += [f"## {family}", ""]
        lines.append(
            "| recipe | what it is | box | mask | keypoint | iterations x images | parameters | published in |"
        )
        lines.append("|---|---|---:|---:|---:|---|---:|---|")
        lines += [_row(recipe, configs[recipe.name]) for recipe in members]
        lines.append("")
    lines += ["## Published rows without a recipe", "", "| row | why |", "|---|---|"]
    lines += [f"| {row} | {why} |" for row, why in EXCLUDED.items()]
    return "\n".join(lines) + "\n"


def _row(recipe: Recipe, config: RunConfig) -> str:
    numbers = " | ".join(published_ap(recipe))
    count = f"{recipe.parameters.total:,}" if recipe.parameters else ""
    rows = ", ".join(result.row for result in recipe.published)
    where = f"{rows}: {recipe.field('Source')}" if rows else recipe.field("Source") or recipe.field("Reached")
    link = f"[{recipe.name}](../conf/recipe/{recipe.name}.yaml)"
    return f"| {link} | {recipe.summary} | {numbers} | {schedule_of(config)} | {count} | {where} |"
