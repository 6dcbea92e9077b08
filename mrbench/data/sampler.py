"""Which image is where in the endless stream that training reads: a function of (seed, position) alone.

The stream is one permutation of the images after another, epoch by epoch; the global batch of iteration t is the
positions t*B to t*B + B - 1, unless images are grouped by their aspect. Nothing depends on workers, processes or
where a run was interrupted.
"""

from functools import lru_cache

import numpy as np

# Keeps the streams of random numbers that are drawn from one seed apart from each other.
ORDER, AUGMENTATION, SAMPLING, PASTE, COLOUR = 1, 2, 3, 4, 5


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


class AspectGroups:
    """Global batches of wide images only or of others only, from the same stream.

    As Detectron2's `AspectRatioGroupedDataset` (data/common.py): the stream is dealt into two heaps, and a heap that
    holds a batch is the next one. There each process groups its own share; here the whole batch is one group, and
    what it holds is computed from the iteration's number alone.

    `wide`: bool [images].
    """

    def __init__(self, wide: np.ndarray, batch: int, seed: int) -> None:
        self.wide, self.batch, self.seed = wide, batch, seed
        self.counts = (int(np.count_nonzero(~wide)), int(np.count_nonzero(wide)))

    def global_batch(self, iteration: int) -> list[tuple[int, int]]:
        """(epoch, image index) for each slot of iteration `iteration` (from 0)."""
        low, high = 0, (iteration + 2) * self.batch // len(self.wide) + 2
        while high - low > 1:  # the last epoch at whose begin no more than `iteration` batches were full
            middle = (low + high) // 2
            low, high = (middle, high) if self._full(middle) <= iteration else (low, middle)
        ends, firsts = [], []
        for kind, count in enumerate(self.counts):
            first, last = low * count // self.batch, (low + 1) * count // self.batch
            # Batch k is full with the kind's image number (k + 1) * batch - 1, counted over all epochs.
            full = np.arange(first + 1, last + 1) * self.batch - 1 - low * count
            ends.append(np.flatnonzero(self.wide[self._order(low)] == bool(kind))[full])
            firsts.append(first)
        place = np.argsort(np.concatenate(ends))[iteration - self._full(low)]
        kind = int(place >= len(ends[0]))
        number = int(place) - kind * len(ends[0])
        first = (firsts[kind] + number) * self.batch
        return self._images(kind, first, first + self.batch)

    def _full(self, epoch: int) -> int:
        """How many batches the epochs before `epoch` have filled."""
        return sum(epoch * count // self.batch for count in self.counts)

    def _images(self, kind: int, first: int, end: int) -> list[tuple[int, int]]:
        """(epoch, image index) of a kind's images `first` to `end` - 1, counted over all epochs."""
        found: list[tuple[int, int]] = []
        while first < end:
            epoch, place = divmod(first, self.counts[kind])
            order = self._order(epoch)
            here = order[self.wide[order] == bool(kind)][place : place + end - first]
            found += [(epoch, int(index)) for index in here]
            first += len(here)
        return found

    def _order(self, epoch: int) -> np.ndarray:
        return epoch_order(len(self.wide), self.seed, epoch)


def slot_seeds(seed: int, iteration: int, slots: range) -> list[int]:
    """A number of 62 bits for each slot of the global batch, from which the model samples anchors and RoIs."""
    sequences = (np.random.SeedSequence([seed, SAMPLING, iteration, slot]) for slot in slots)
    return [int(s.generate_state(1, np.uint64)[0] >> np.uint64(2)) for s in sequences]


def share(batch: int, rank: int, world_size: int) -> range:
    """The slots of process `rank`: consecutive, sizes differ by at most one."""
    return range(batch * rank // world_size, batch * (rank + 1) // world_size)
