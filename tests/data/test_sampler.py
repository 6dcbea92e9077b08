"""The stream of images is a function of the seed and the position alone."""

import numpy as np
import pytest

from mrbench.data.sampler import AspectGroups, epoch_order, global_batch, share, slot_seeds


def test_every_image_once_an_epoch_in_an_order_of_its_own() -> None:
    stream = [slot for t in range(15) for slot in global_batch(25, 5, seed=3, iteration=t)]
    orders = [[image for epoch, image in stream if epoch == e] for e in range(3)]
    assert all(sorted(order) == list(range(25)) for order in orders)
    assert orders[0] != orders[1] != orders[2]


def test_batches_run_on_over_the_end_of_an_epoch() -> None:
    stream = [slot for t in range(7) for slot in global_batch(5, 3, seed=0, iteration=t)]
    assert [epoch for epoch, _ in stream] == [p // 5 for p in range(21)]
    # A batch larger than the data set goes through several epochs.
    assert global_batch(5, 21, seed=0, iteration=0) == stream


def test_the_stream_is_the_same_wherever_it_is_entered_and_changes_with_the_seed() -> None:
    late = global_batch(100, 8, seed=7, iteration=123_456)
    assert late == global_batch(100, 8, seed=7, iteration=123_456)
    assert late[0][0] == 123_456 * 8 // 100
    assert late != global_batch(100, 8, seed=8, iteration=123_456)


def test_shares_are_the_batch_whatever_the_number_of_processes() -> None:
    for batch in (1, 4, 16, 17):
        for world_size in range(1, batch + 1):
            shares = [share(batch, rank, world_size) for rank in range(world_size)]
            assert [slot for part in shares for slot in part] == list(range(batch))
            assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_seeds_of_slots_are_distinct_and_belong_to_the_global_slot() -> None:
    whole = slot_seeds(0, 5, range(8))
    assert whole[4:] == slot_seeds(0, 5, range(4, 8))
    many = [s for t in range(200) for s in slot_seeds(0, t, range(4))]
    assert len(set(many)) == 800
    assert all(0 <= s < 2**62 for s in many)
    assert np.log2(max(many)) > 61


@pytest.mark.parametrize(
    ("images", "batch", "share_wide"), [(50, 4, 0.7), (7, 5, 0.4), (3, 8, 0.5), (40, 8, 0.0), (40, 8, 1.0)]
)
def test_pictures_of_one_aspect_go_together_as_the_stream_fills_two_heaps(images, batch, share_wide) -> None:
    wide = np.arange(images) < share_wide * images
    groups = AspectGroups(wide, batch, seed=4)
    # Picture by picture, as Detectron2's AspectRatioGroupedDataset does it.
    heaps: dict[bool, list[tuple[int, int]]] = {False: [], True: []}
    expected = []
    for epoch in range(30):
        for index in epoch_order(images, 4, epoch):
            heap = heaps[bool(wide[index])]
            heap.append((epoch, int(index)))
            if len(heap) == batch:
                expected.append(list(heap))
                heap.clear()
    assert len(expected) > 3
    assert [groups.global_batch(t) for t in range(len(expected))] == expected
    assert groups.global_batch(len(expected) - 1) == expected[-1]  # wherever it is entered
