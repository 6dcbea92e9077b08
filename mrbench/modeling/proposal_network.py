"""The region proposal network on a body of its own, without heads: the first stage of stage-wise training."""

from dataclasses import dataclass

import torch
from torch import Tensor

from mrbench.data.batch import Batch
from mrbench.modeling import boxes as box_ops
from mrbench.modeling.body import Body
from mrbench.modeling.fpn import FPN
from mrbench.modeling.losses import LossTerm
from mrbench.modeling.postprocess import rescale
from mrbench.modeling.rpn import RPN
from mrbench.modeling.single_map import SingleMap
from mrbench.modeling.trunk import Trunk


@dataclass
class ImageProposals:
    """What is proposed in one image, by falling objectness."""

    boxes: Tensor  # float32 [N, 4] xyxy in the pixels of the image file
    scores: Tensor  # float32 [N]: objectness before the sigmoid


class ProposalNetwork(Trunk):
    """`forward` gives the losses of a batch, `propose` its regions (Ren et al. 2015, section 3.2; Detectron2,
    modeling/meta_arch/rcnn.py, `ProposalNetwork`)."""

    def __init__(
        self, backbone: Body, neck: FPN | SingleMap, rpn: RPN, pixel_mean: list[float], pixel_std: list[float]
    ) -> None:
        super().__init__(backbone, neck, pixel_mean, pixel_std)
        self.rpn = rpn

    def forward(self, batch: Batch) -> dict[str, LossTerm]:
        """rpn_objectness and rpn_box before normalisation, as those of `MaskRCNN.forward`."""
        output = self.rpn(self.features(batch))
        return self.rpn.losses(output, batch.labels >= 0, batch.boxes, batch.seeds, batch.sizes)

    def count_samples(self, batch: Batch) -> dict[str, Tensor]:
        """The counts of `forward`'s losses alone."""
        return self.rpn.count_samples(batch.seeds)

    @torch.no_grad()
    def propose(self, batch: Batch) -> list[ImageProposals]:
        """The proposals of every image, in the pixels of its file. Call it in eval mode."""
        found = self.rpn.propose(self.rpn(self.features(batch)), batch.sizes)
        proposed = []
        for i, valid in enumerate(found.valid):
            sizes, original = (s[i : i + 1].expand(int(valid.sum()), 2) for s in (batch.sizes, batch.original_sizes))
            boxes = rescale(found.boxes[i][valid], sizes, original)
            seen = box_ops.has_area(boxes)
            proposed.append(ImageProposals(boxes[seen], found.scores[i][valid][seen]))
        return proposed
