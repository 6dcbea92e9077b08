"""Stated proposals in the place of those of random weights."""

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from mrbench.bench.inputs import stated_proposals
from mrbench.config.schema import RunConfig
from mrbench.data.batch import Batch
from mrbench.modeling.build import Network
from mrbench.modeling.detector import MaskRCNN
from mrbench.modeling.rpn import Proposals


class Given:
    """Puts stated proposals in the place of those that an RPN with random weights makes of noise.

    The RPN does its work all the same, and only what comes out of it is exchanged. `current` is the batch that the
    network is at.
    """

    def __init__(self, model: Network, config: RunConfig, positives: int | None) -> None:
        roi, self.rpn = config.model.roi, config.model.rpn
        room = int(roi.samples * roi.positive_fraction)
        self.positives = room // 2 if positives is None else min(positives, room)
        self.iou = max([roi.foreground_iou, *config.model.box_head.cascade])
        self.seed = config.seed
        self.draws: dict[tuple[int, int, str], Tensor] = {}
        self.model = model
        self.current: Batch | None = None
        if isinstance(model, MaskRCNN) and model.rpn is not None:
            propose = model.rpn.propose

            def instead(output: Any, sizes: Tensor) -> Proposals:
                found = propose(output, sizes)
                if self.current is None or self.current.proposals is None:
                    return found
                boxes, scores = self.current.proposals[..., :4], self.current.proposals[..., 4]
                return Proposals(boxes, scores, scores > -torch.inf)

            model.rpn.propose = instead  # type: ignore[method-assign]

    def to(self, batch: Batch) -> Batch:
        """The batch with proposals, as many as the RPN would hand on."""
        number = self.rpn.post_nms_train if self.model.training else self.rpn.post_nms_test
        key = (len(batch), number, str(batch.boxes.device))
        if key not in self.draws:
            generator = torch.Generator().manual_seed(self.seed)
            self.draws[key] = torch.rand(len(batch), number, 4, generator=generator).to(batch.boxes.device)
        proposals = stated_proposals(batch.boxes, batch.labels, batch.sizes, self.draws[key], self.positives, self.iou)
        return replace(batch, proposals=proposals)

    def at(self, batch: Batch) -> Batch:
        """Says that the network comes to this batch."""
        self.current = batch
        return batch


def proposals_text(config: RunConfig, given: Given | None) -> str:
    """Whose proposals the heads get."""
    if given is not None:
        return f"stated, {given.positives} positive an image"
    return "read from a file" if config.model.rpn.mode == "precomputed" else "of the given weights"
