"""Recipe files as a person reads them: what each is, and what it reaches."""

from dataclasses import dataclass
from pathlib import Path

from mrbench.config.compose import groups
from mrbench.config.paths import conf_dir
from mrbench.config.suggest import did_you_mean
from mrbench.errors import UserError


@dataclass(frozen=True)
class Recipe:
    """A file of conf/recipe: its first comment is the summary; `Published:` or `Reached:` says what it comes to."""

    name: str
    text: str

    def _comments(self) -> list[str]:
        lines = [line[1:].strip() for line in self.text.splitlines() if line.startswith("#")]
        return [line for line in lines if not line.startswith("@package")]

    @property
    def summary(self) -> str:
        return next(iter(self._comments()), "")

    @property
    def reaches(self) -> str:
        """AP by the literature (`Published:`), or as measured with mrbench (`Reached:`)."""
        line = next((c for c in self._comments() if c.startswith(("Published:", "Reached:"))), "")
        return line.replace("Published:", "published:").replace("Reached:", "measured:").split("(")[0].strip()


def recipes(config_dir: Path | None = None) -> list[Recipe]:
    """All recipes, by name; one of `config_dir` wins over ours of the same name."""
    found = []
    for name in sorted(groups(config_dir).get("recipe", [])):
        tops = [top for top in (config_dir, conf_dir()) if top and (top / "recipe" / f"{name}.yaml").is_file()]
        found.append(Recipe(name, (tops[0] / "recipe" / f"{name}.yaml").read_text(encoding="utf-8")))
    return found


def find_recipe(name: str, config_dir: Path | None = None) -> Recipe:
    """Raises UserError with the nearest names."""
    known = {r.name: r for r in recipes(config_dir)}
    if name not in known:
        raise UserError(f"There is no recipe '{name}'", did_you_mean(name, known, "mrbench recipes list shows them."))
    return known[name]
