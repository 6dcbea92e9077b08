"""Where conf/, ablations/ and results/published/ lie: at the top of a clone, inside the package of a wheel."""

from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1]


def _top() -> Path:
    packaged = PACKAGE / "_files"
    return packaged if packaged.is_dir() else PACKAGE.parent


def conf_dir() -> Path:
    return _top() / "conf"


def ablations_dir() -> Path:
    return _top() / "ablations"


def published_dir() -> Path:
    return _top() / "results" / "published"
