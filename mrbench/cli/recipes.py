"""`mrbench recipes`: the published recipes that come with mrbench."""

from typing import Annotated

import typer

from mrbench.cli.common import ConfigDir, compose

app = typer.Typer(help="Look at the recipes: published ones, and a few of our own.", no_args_is_help=True)


@app.command("list")
def list_recipes(config_dir: ConfigDir = None) -> None:
    """All recipes, with what each one is. Example: mrbench recipes list"""
    from rich.console import Console
    from rich.table import Table

    from mrbench.config.recipes import recipes

    table = Table(box=None, header_style="bold", pad_edge=False)
    table.add_column("recipe", no_wrap=True)
    table.add_column("what it is")
    table.add_column("reaches")
    for recipe in recipes(config_dir):
        table.add_row(recipe.name, recipe.summary, recipe.reaches)
    Console().print(table)


@app.command("show")
def show_recipe(
    name: Annotated[str, typer.Argument(help="As `mrbench recipes list` names it.")],
    config_dir: ConfigDir = None,
) -> None:
    """A recipe's own text, then the whole configuration that it composes to.

    Example: mrbench recipes show mask_rcnn_r50_fpn_1x
    """
    from mrbench.config.compose import to_yaml
    from mrbench.config.recipes import find_recipe

    recipe = find_recipe(name, config_dir)
    typer.echo(recipe.text.rstrip())
    typer.echo("\n# ---- composed ----")
    typer.echo(to_yaml(compose([f"recipe={name}"], config_dir)).rstrip())
