"""Which image is where in the endless stream that training reads: a function of (seed, position) alone.

The stream is one permutation of the images after another, epoch by epoch; the global batch of iteration t is the
positions t*B to t*B + B - 1. Nothing depends on workers, processes or where a run was interrupted.
"""

from functools import lru_cache

import numpy as np

# Keeps the streams of random numbers that are drawn from one seed apart from each other.
ORDER, AUGMENTATION, SAMPLING = 1, 2, 3


def random_stream(seed: int, *key: int) -> np.random.Generator:
    """A generator that depends on all of `seed` and `key`, whole numbers from 0."""
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, *key])))


@lru_cache(maxsize=4)
def epoch_order(images: int, seed: int, epoch: int) -> np.ndarray:
    """The permutation int64 [images] that epoch `epoch` (from 0) goes through."""
    order = random_stream(seed, ORDER, epoch).permutation(images)
    order.setflags(write=False)
    return order


def global_batch(images: int, batch: int, seed: int, iteration: int) -> list[tuple[int, int]]:
    """(epoch, image index) for each of the `batch` slots of iteration `iteration` (from 0)."""
    slots = []
    for position in range(iteration * batch, (iteration + 1) * batch):
        epoch, place = divmod(position, images)
        slots.append((epoch, int(epoch_order(images, seed, epoch)[place])))
    return slots


def slot_seeds(seed: int, iteration: int, slots: range) -> list[int]:
    """A number of 62 bits for each slot of the global batch, from which the model samples anchors and RoIs."""
    sequences = (np.random.SeedSequence([seed, SAMPLING, iteration, slot]) for slot in slots)
    return [int(s.generate_state(1, np.uint64)[0] >> np.uint64(2)) for s in sequences]


def share(batch: int, rank: int, world_size: int) -> range:
    """The slots of process `rank`: consecutive, sizes differ by at most one."""
    return range(batch * rank // world_size, batch * (rank + 1) // world_size)
