"""Grids from the command line, against lists worked out by hand."""

import pytest

from mrbench.errors import UserError
from mrbench.study.grid import grid_study, only_fixed


def arms(*overrides: str) -> list[str]:
    return [a.name for a in grid_study(overrides).arms]


@pytest.mark.parametrize(
    "overrides,names",
    [
        (["model.norm=gn,bn"], ["model.norm=gn", "model.norm=bn"]),
        (
            ["model.norm=gn,bn", "data=shapes", "optimizer.lr=0.1,0.2"],
            [
                "model.norm=gn,optimizer.lr=0.1",
                "model.norm=gn,optimizer.lr=0.2",
                "model.norm=bn,optimizer.lr=0.1",
                "model.norm=bn,optimizer.lr=0.2",
            ],
        ),
        (["model.rpn.convs=range(1,4)"], ["model.rpn.convs=1", "model.rpn.convs=2", "model.rpn.convs=3"]),
        (
            ["optimizer.weight_decay=choice(4e-5,1e-4)"],
            ["optimizer.weight_decay=4e-5", "optimizer.weight_decay=0.0001"],
        ),
        (["data.keep_empty=true,false"], ["data.keep_empty=true", "data.keep_empty=false"]),
        (
            ["augmentation.short_edge=[640,800],[800]"],
            ["augmentation.short_edge=[640,800]", "augmentation.short_edge=[800]"],
        ),
        (["augmentation.short_edge=[640,800]"], ["base"]),
        (["model.norm=gn,gn"], ["model.norm=gn"]),
        (["seed=0,1"], ["base"]),
    ],
)
def test_arms_stand_in_hydras_order_and_are_called_as_they_are_overridden(
    overrides: list[str], names: list[str]
) -> None:
    assert arms(*overrides) == names
    assert grid_study(overrides).baseline == names[0]


@pytest.mark.parametrize(
    "seed,seeds", [("seed=0,1,2", (0, 1, 2)), ("seed=range(0,3)", (0, 1, 2)), ("seed=5", (5,)), ("data=shapes", (0,))]
)
def test_the_seed_is_no_arm(seed: str, seeds: tuple[int, ...]) -> None:
    study = grid_study(["model.norm=gn,bn", seed])
    assert study.seeds == seeds
    assert len(study.arms) == 2


def test_more_values_and_seeds_extend_the_same_study_and_other_bases_do_not() -> None:
    name = grid_study(["model.norm=gn,bn", "data=shapes"]).name
    assert name.startswith("norm-")
    assert grid_study(["data=shapes", "model.norm=gn,bn,none", "seed=0,1"]).name == name
    assert grid_study(["model.norm=gn,bn", "data=shapes", "optimizer.lr=0.1"]).name != name
    assert grid_study(["model.norm=gn,bn"], "mine").name == "mine"


@pytest.mark.parametrize(
    "overrides,says",
    [
        (["optimizer.lr=interval(0,1)"], "no end of values"),
        (["model=glob(*)"], "cannot be listed"),
        (["model.norm=gn,bn", "model.norm=none,bn"], "varies twice"),
        (["model.norm==gn"], "Cannot read the override 'model.norm==gn'"),
        (["seed=a,b"], "'a' is not a seed"),
    ],
)
def test_what_cannot_be_enumerated_is_told(overrides: list[str], says: str) -> None:
    with pytest.raises(UserError, match=r".*") as caught:
        grid_study(overrides)
    assert says in str(caught.value)


def test_overrides_of_a_study_hold_for_all_its_runs() -> None:
    assert only_fixed(["data.root=x"]) == ("data.root=x",)
    for wrong in ("model.norm=gn,bn", "seed=1"):
        with pytest.raises(UserError):
            only_fixed([wrong])
