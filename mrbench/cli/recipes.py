"""`mrbench recipes`: the published recipes that come with mrbench."""

from pathlib import Path
from typing import Annotated

import typer

from mrbench.cli.common import ConfigDir, compose, plain, scaling

app = typer.Typer(help="Look at the recipes: published ones, and a few of our own.", no_args_is_help=True)
Name = Annotated[str, typer.Argument(help="As `mrbench recipes list` names it.")]


@app.command("list")
def list_recipes(
    words: Annotated[
        list[str] | None, typer.Argument(help="Only recipes that have all these words in name, summary or source.")
    ] = None,
    config_dir: ConfigDir = None,
) -> None:
    """Recipes with their network, published AP and millions of parameters, by source.

    Examples: mrbench recipes list, mrbench recipes list keypoint, mrbench recipes list lsj r101
    """
    from rich import box
    from rich.console import Console
    from rich.table import Table

    from mrbench.config.recipes import recipes
    from mrbench.errors import UserError
    from mrbench.report.recipes import by_family, network, published_ap

    wanted = [word.lower() for word in words or []]
    known = recipes(config_dir)
    found = [
        recipe
        for recipe in known
        if all(word in f"{recipe.name} {recipe.summary} {recipe.field('Source')}".lower() for word in wanted)
    ]
    if not found:
        raise UserError(
            f"No recipe has all of: {' '.join(words or [])}", f"`mrbench recipes list` shows all {len(known)}."
        )
    table = Table(box=box.SIMPLE_HEAD, header_style="bold", pad_edge=False, padding=(0, 1, 0, 0), show_edge=False)
    table.add_column("recipe", overflow="fold")
    table.add_column("network", overflow="fold")
    for header in ("box", "mask", "kp", "M par."):
        table.add_column(header, justify="right", no_wrap=True)
    for place, (family, members) in enumerate(by_family(found).items()):
        if place:
            table.add_row()
        table.add_row(f"[bold]{family}[/bold]")
        for recipe in members:
            count = f"{recipe.parameters.total / 1e6:.1f}" if recipe.parameters else ""
            table.add_row(recipe.name, network(recipe), *published_ap(recipe), count)
    Console().print(table)


@app.command("show")
def show_recipe(
    name: Name,
    full: Annotated[bool, typer.Option("--full", help="The whole configuration as well.")] = False,
    config_dir: ConfigDir = None,
) -> None:
    """What a recipe is, what it changes in its parent, and which recipes change it.

    Example: mrbench recipes show mask_rcnn_r50_fpn_1x --full
    """
    from mrbench.config.compose import to_yaml
    from mrbench.config.recipes import changes, find_recipe, recipes

    recipe = find_recipe(name, config_dir)
    config = compose([f"recipe={name}"], config_dir)
    parent = compose([f"recipe={recipe.parent}"] if recipe.parent else [], config_dir)
    for line in recipe.text.splitlines():
        if line.startswith("#") and "@package" not in line:
            typer.echo(line[1:].removeprefix(" "))
    typer.echo(f"\nchanges in {recipe.parent or 'the default run (conf/config.yaml)'}:")
    for change in changes(parent, config):
        typer.echo(f"  {change.key}: {plain(change.old)} -> {plain(change.new)}")
    for line in scaling([f"recipe={name}"], config_dir):
        typer.echo(line)
    if children := [r.name for r in recipes(config_dir) if r.parent == name]:
        typer.echo("\nchanged by:")
        for child in children:
            typer.echo(f"  {child}")
    if full:
        typer.echo("\n# ---- composed ----")
        typer.echo(to_yaml(config).rstrip())


@app.command("table")
def write_table(
    out: Annotated[Path | None, typer.Option("--out", "-o", help="The file to write; else standard output.")] = None,
) -> None:
    """All recipes with published numbers, schedules and sources, as Markdown: docs/recipes.md.

    Example: mrbench recipes table -o docs/recipes.md
    """
    from mrbench.config.recipes import recipes
    from mrbench.report.recipes import page
    from mrbench.runs.files import write_text

    known = recipes()
    text = page(known, {recipe.name: compose([f"recipe={recipe.name}"]) for recipe in known})
    if out is None:
        typer.echo(text, nl=False)
    else:
        write_text(out, text)
        typer.echo(f"{out} is written.")


@app.command("axes")
def write_axes(
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="A page that has these tables, which are replaced; else standard output."),
    ] = None,
) -> None:
    """Every key of `model`, which recipes use which value of it, and the published rows by network, as Markdown.

    Example: mrbench recipes axes -o docs/architectures.md
    """
    from mrbench.config.recipes import recipes
    from mrbench.errors import UserError
    from mrbench.report.architectures import generated, replaced
    from mrbench.runs.files import write_text

    if out is not None and not out.is_file():
        raise UserError(f"There is no file {out}", "Name a page that has the tables, as docs/architectures.md.")
    known = recipes()
    part = generated(known, {recipe.name: compose([f"recipe={recipe.name}"]).model for recipe in known})
    if out is None:
        typer.echo(part, nl=False)
    else:
        write_text(out, replaced(out.read_text(encoding="utf-8"), part))
        typer.echo(f"{out} is written.")
