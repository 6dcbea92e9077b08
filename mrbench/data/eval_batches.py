"""What a process tests on: its part of all images, in one view each or in several."""

import numpy as np
from torch.utils.data import Dataset

from mrbench.config.schema import RunConfig
from mrbench.data.augmentation import Plan
from mrbench.data.batch import Views
from mrbench.data.coco import CocoDataset
from mrbench.data.collate import Sample, collate, padded_size
from mrbench.data.pictures import read_picture
from mrbench.data.sampler import slot_seeds


class EvalBatches(Dataset):
    """Item k is the k-th batch of this process, in the views that `plans` has of each image."""

    def __init__(
        self, dataset: CocoDataset, config: RunConfig, plans: list[list[Plan]], rank: int, world_size: int
    ) -> None:
        self.dataset, self.config = dataset, config
        self.proposals = dataset.proposals if config.model.rpn.mode == "precomputed" else None
        groups: dict[tuple[tuple[int, int], ...], list[tuple[int, list[Plan]]]] = {}
        for index, views in enumerate(plans):
            sizes = tuple(padded_size([plan.size], config.model.neck.kind) for plan in views)
            groups.setdefault(sizes, []).append((index, views))
        n = config.runtime.evaluation_batch
        # Large ones first: if the memory does not suffice, it is known at once.
        batches = [
            (sizes, group[i : i + n])
            for sizes, group in sorted(groups.items(), key=lambda g: -g[0][0][0] * g[0][0][1])
            for i in range(0, len(group), n)
        ]
        self.batches = list(enumerate(batches))[rank::world_size]

    def __len__(self) -> int:
        return len(self.batches)

    def __getitem__(self, item: int) -> Views:
        number, (sizes, members) = self.batches[item]
        samples = [self._read(index, plans) for index, plans in members]
        seeds = slot_seeds(self.config.seed, number, range(len(samples)))
        of_view = zip(sizes, zip(*samples, strict=True), strict=True)
        batches = [collate(list(view), size, 1, False, 0, seeds, number) for size, view in of_view]
        return Views(batches, [plan.flip for plan in members[0][1]])

    def _read(self, index: int, plans: list[Plan]) -> list[Sample]:
        """The image in each of its views."""
        image = self.dataset.images[index]
        picture = read_picture(image)
        samples = []
        for plan in plans:
            pixels = plan.picture(picture)
            sample = Sample(image.id, pixels, plan, np.zeros((0, 4)), np.zeros(0, np.int64), [], np.zeros((0, 0, 3)))
            if self.proposals is not None:
                sample.proposals = self.proposals.of(index, plan, self.config.model.rpn.post_nms_test)
            samples.append(sample)
        return samples
