"""The choice of anchors and RoIs: fair, repeatable, independent of padding."""

import torch

from mrbench.modeling.sampling import GROUND_TRUTH, ROIS, choose, lots


def test_lots_are_uniform_distinct_and_differ_between_seeds_and_streams() -> None:
    n = 1 << 16
    lot = lots(torch.tensor([0, 1, 1 << 40, (1 << 62) - 1]), 1, torch.arange(n))
    for row in lot:
        assert int(row.min()) >= 0
        assert int(row.max()) < 1 << 32
        assert len(row.unique()) == n
        counts = torch.histc(row.double(), 256, 0, float(1 << 32))
        # chi-square with 255 degrees of freedom: 99.99 % lie in 180 .. 350
        assert 170 < float(((counts - n / 256) ** 2 / (n / 256)).sum()) < 360
    uniform = lot.double() / (1 << 32) - 0.5
    other = lots(torch.tensor([0]), 2, torch.arange(n)).double() / (1 << 32) - 0.5
    rows = torch.cat([uniform, other])
    correlation = torch.corrcoef(rows) - torch.eye(len(rows))
    assert correlation.abs().max() < 0.02
    neighbours = torch.corrcoef(torch.stack([uniform[0, :-1], uniform[0, 1:]]))[0, 1]
    assert abs(float(neighbours)) < 0.02


def test_every_box_is_chosen_as_often_as_any_other() -> None:
    labels = torch.zeros(4000, 20, dtype=torch.int64)
    lot = lots(torch.arange(4000) * 7919, ROIS, torch.arange(20))
    often = torch.bincount(choose(labels, lot, 5, 0.5).index.flatten(), minlength=20)
    # binomial: 1000 expected, standard deviation 27
    assert (often - 1000).abs().max() < 130


def test_foreground_up_to_its_fraction_then_background_then_nothing() -> None:
    labels = torch.tensor([[1, 1, 1, 0, 0, 0, -1, -1], [0, 0, 1, -1, -1, -1, -1, -1]])
    slots = choose(labels, lots(torch.tensor([3, 4]), 1, torch.arange(8)), 4, 0.5)
    assert slots.foreground.tolist() == [[True, True, False, False], [True, False, False, False]]
    assert slots.used.tolist() == [[True] * 4, [True, True, True, False]]
    chosen = labels.gather(1, slots.index)
    assert chosen[0].tolist() == [1, 1, 0, 0]
    assert chosen[1, :3].tolist() == [1, 0, 0]
    for index, used in zip(slots.index, slots.used, strict=True):
        assert len(index[used].unique()) == int(used.sum())


def test_more_places_than_boxes() -> None:
    slots = choose(torch.tensor([[1, 0, 0]]), torch.tensor([[5, 2, 9]]), 100, 0.5)
    assert slots.index.tolist() == [[0, 1, 2]]
    assert slots.used.all()


def test_padding_of_the_ground_truth_changes_no_lot() -> None:
    seeds = torch.tensor([11, 12])
    short = torch.cat([torch.arange(50), torch.arange(3) + GROUND_TRUTH])
    long = torch.cat([torch.arange(50), torch.arange(9) + GROUND_TRUTH])
    assert torch.equal(lots(seeds, ROIS, short), lots(seeds, ROIS, long)[:, :53])
