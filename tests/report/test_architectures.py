"""The tables of docs/architectures.md: patterns of recipes, networks in words, and the page that they go into."""

import re
from dataclasses import replace
from fnmatch import fnmatchcase
from pathlib import Path

import pytest
from typer.testing import CliRunner

from mrbench.cli.app import app
from mrbench.config.recipes import recipes
from mrbench.config.schema import ModelConfig
from mrbench.errors import UserError
from mrbench.report.architectures import BEGIN, END, axes, globs, network, replaced, users
from mrbench.report.axes import AXES

NAMES = [recipe.name for recipe in recipes()]
A = ["lsj_r50_a", "lsj_r50_b", "lsj_r101_c", "lsj_r50_gn", "zoo_r50_c4", "zoo_r50_c4_gn", "zoo_r101_c4", "zoo_r50_fpn"]


def expanded(patterns: list[str], names: list[str]) -> set[str]:
    """As a reader expands them: `a*` (but `b*`, `c`)."""
    found: set[str] = set()
    for text in patterns:
        first, *but = re.findall("`(.*?)`", text)
        found |= {n for n in names if fnmatchcase(n, first) and not any(fnmatchcase(n, one) for one in but)}
    return found


@pytest.mark.parametrize(
    "wanted,patterns",
    [
        (["zoo_r50_c4", "zoo_r50_c4_gn", "zoo_r101_c4"], ["`*_c4*`"]),
        (["lsj_r50_gn", "zoo_r50_c4_gn"], ["`*_gn*`"]),
        (["lsj_r50_a", "lsj_r50_b", "lsj_r101_c"], ["`lsj_*` (but `lsj_r50_gn`)"]),
        (["zoo_r50_fpn"], ["`zoo_r50_fpn`"]),
    ],
)
def test_patterns_are_few_and_name_what_is_meant(wanted: list[str], patterns: list[str]) -> None:
    assert globs(wanted, A) == patterns


@pytest.mark.parametrize("seed", range(20))
def test_patterns_expand_to_what_they_stand_for(seed: int) -> None:
    wanted = {name for place, name in enumerate(NAMES) if (place * 7 + seed) % 11 < 1 + seed % 10}
    assert expanded(globs(wanted, NAMES), NAMES) == wanted


def test_the_most_common_value_is_the_others() -> None:
    model = ModelConfig()
    c4 = replace(model, neck=replace(model.neck, kind="c4"))
    kind = next(axis for axis in axes() if axis.key == "neck.kind")
    told = users(kind, {"a_x": model, "b_x": model, "b_c4": c4})
    assert told == "c4: `b_c4`<br>fpn: the others"
    assert users(kind, {"a": c4, "b": c4}) == "c4: all"
    assert kind.admits == "**fpn**, c4, c5"


def test_every_key_is_explained() -> None:
    assert list(AXES) == [axis.key for axis in axes()]


def test_a_network_in_words() -> None:
    model = ModelConfig()
    body = replace(model.backbone, depth=101, groups=64, width_per_group=4)
    dc5 = replace(model.neck, kind="c5")
    words = network(replace(model, backbone=replace(body, dilated_c5=True), neck=dc5, rpn=replace(model.rpn, convs=2)))
    assert (words.body, words.neck, words.rpn) == ("X101-64x4d", "DC5", "joint, 2 conv")
    mlp = replace(model.mask_head, kind="mlp", loss="softmax", class_agnostic=True)
    cascade = replace(model.box_head, cascade=[0.5, 0.6, 0.7], convs=4, fcs=1, norm="gn")
    words = network(replace(model, mask_head=mlp, box_head=cascade, pooler=replace(model.pooler, kind="roi_pool")))
    assert words.mask_head == "2 fc softmax agnostic"
    assert (words.box_head, words.norm) == ("cascade 4 conv, 1 fc", "frozen_bn, box head gn")
    assert words.pooler == "roi_pool max"


def test_a_page_keeps_what_is_around_the_tables() -> None:
    assert replaced(f"before\n{BEGIN}\nold\n{END}\nafter\n", "new\n") == f"before\n{BEGIN}\nnew\n{END}\nafter\n"
    with pytest.raises(UserError, match="two lines"):
        replaced("a page without tables", "new")


def test_a_page_that_is_not_there_is_one_message(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["recipes", "axes", "-o", str(tmp_path / "page.md")])
    assert isinstance(done.exception, UserError)
    assert not list(tmp_path.iterdir())
