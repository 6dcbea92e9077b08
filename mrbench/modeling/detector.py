"""Mask R-CNN (He et al. 2017): backbone, pyramid, proposals, and the branches for boxes, masks and keypoints, over
whole batches."""

from collections.abc import Callable, Iterable, Sequence
from functools import partial

import torch
from torch import Tensor

from mrbench.config.schema import InferenceConfig, RoIConfig
from mrbench.data.batch import Batch, MaskWindows
from mrbench.modeling import boxes as box_ops
from mrbench.modeling.body import Body
from mrbench.modeling.box_head import BoxHead, box_losses
from mrbench.modeling.cascade import CascadeHead
from mrbench.modeling.fpn import FPN
from mrbench.modeling.keypoint_decode import heatmaps_to_keypoints
from mrbench.modeling.keypoint_head import KeypointHead, keypoint_loss, keypoint_targets
from mrbench.modeling.losses import LossTerm
from mrbench.modeling.mask_head import MaskBranch
from mrbench.modeling.mask_targets import coverage_targets
from mrbench.modeling.norm import held_statistics
from mrbench.modeling.pooler import Pooler
from mrbench.modeling.postprocess import Detections, Found, best, candidates, keypoints_to_original, rescale
from mrbench.modeling.roi_samples import RoIs, RoISamples, sample_rois
from mrbench.modeling.rpn import RPN, Proposals
from mrbench.modeling.single_map import SingleMap
from mrbench.modeling.trunk import Trunk

MaskTarget = Callable[[MaskWindows, Tensor, Tensor, Tensor, int], Tensor]


class MaskRCNN(Trunk):
    """`forward` gives the losses of a batch, `detect` its detections.

    rpn: without one the proposals come with the batch (Girshick 2015).
    compact: keep only the RoIs that are in use before they enter the heads. It makes the host wait for the device,
    but the places that are not in use must not reach a norm that averages over RoIs, and on a CPU they cost time.
    mask_target: the mask branch's target; see `mrbench.modeling.mask_targets.coverage_targets`.
    """

    def __init__(
        self,
        backbone: Body,
        neck: FPN | SingleMap,
        rpn: RPN | None,
        box_pooler: Pooler,
        box_head: BoxHead | CascadeHead,
        mask_pooler: Pooler | None,
        mask_head: MaskBranch | None,
        roi: RoIConfig,
        inference: InferenceConfig,
        num_classes: int,
        pixel_mean: list[float],
        pixel_std: list[float],
        compact: bool,
        mask_target: MaskTarget = coverage_targets,
        keypoint_pooler: Pooler | None = None,
        keypoint_head: KeypointHead | None = None,
    ) -> None:
        super().__init__(backbone, neck, pixel_mean, pixel_std)
        self.rpn = rpn
        self.box_pooler = box_pooler
        self.box_head = box_head
        self.mask_pooler = mask_pooler
        self.mask_head = mask_head
        self.roi = roi
        self.inference = inference
        self.num_classes = num_classes
        self.compact = compact
        self.mask_target = mask_target
        self.keypoint_pooler = keypoint_pooler
        self.keypoint_head = keypoint_head

    def forward(self, batch: Batch) -> dict[str, LossTerm]:
        """Losses before normalisation: rpn_objectness and rpn_box, box_class, box_regression and, with these
        branches, mask and keypoint. The stages of a cascade are counted: box_class_1, box_regression_1, box_class_2
        and so on. A term's loss is sum / max(count, 1); add up both over the parts of a global batch first."""
        features = self.features(batch)
        losses = {}
        if self.rpn is None:
            proposals = _given(batch)
        else:
            output = self.rpn(features)
            losses = self.rpn.losses(output, batch.labels >= 0, batch.boxes, batch.seeds, batch.sizes)
            proposals = self.rpn.propose(output, batch.sizes)
        samples = self._sample(batch, proposals)
        losses |= self._head_losses(features, samples, batch)
        if self.keypoint_head is not None:
            if batch.keypoints is None:
                raise ValueError("a keypoint branch needs a batch with keypoints")
            losses["keypoint"] = self._keypoint_loss(features, samples, batch.keypoints)
        return losses

    @torch.no_grad()
    def count_samples(self, batch: Batch) -> dict[str, Tensor]:
        """The counts of `forward`'s losses alone. Leaves running statistics as they are."""
        with held_statistics(self):
            features = self.features(batch)
            samples = self._sample(batch, self.proposals(features, batch))
            if isinstance(self.box_head, CascadeHead):  # how many boxes a stage has is known from the one before
                of_boxes = {name: term.count for name, term in self._box_losses(features, samples, batch).items()}
            else:
                of_boxes = dict.fromkeys(("box_class", "box_regression"), samples.used.sum().float())
        counts = of_boxes if self.rpn is None else self.rpn.count_samples(batch.seeds) | of_boxes
        if self.mask_pooler is not None:
            counts["mask"] = samples.foreground.sum() * float(self.mask_side**2)
        if self.keypoint_pooler is not None:
            assert batch.keypoints is not None
            rois = samples.flat(None)
            _, valid = keypoint_targets(
                batch.keypoints[rois.image, rois.instance], rois.boxes, 4 * self.keypoint_pooler.size
            )
            counts["keypoint"] = (valid & rois.foreground[:, None]).sum().float()
        return counts

    @property
    def mask_side(self) -> int:
        """Of the masks that the mask branch puts out."""
        assert self.mask_pooler is not None
        return 2 * self.mask_pooler.size

    def proposals(self, features: list[Tensor], batch: Batch) -> Proposals:
        """The RPN's, or without one those that came with the batch."""
        if self.rpn is None:
            return _given(batch)
        return self.rpn.propose(self.rpn(features), batch.sizes)

    @torch.no_grad()
    def detect(self, batch: Batch) -> list[Detections]:
        """Detections of every image, in the pixels of its file. Call it in eval mode."""
        features = self.features(batch)
        found = best(self.candidates(features, batch), len(batch), self.num_classes, self.inference)
        masks = self.masks_of(features, found.boxes, found.image, found.labels)
        heatmaps = self.heatmaps_of(features, found.boxes, found.image)
        return self.finish(batch, found, masks, heatmaps)

    def candidates(self, features: list[Tensor], batch: Batch) -> Found:
        """Every region and class above the score threshold, before suppression, in the network's pixels."""
        proposals = self.proposals(features, batch)
        image = torch.arange(len(batch), device=batch.sizes.device)[:, None].expand_as(proposals.valid)
        boxes, image, valid = proposals.boxes.flatten(0, 1), image.flatten(), proposals.valid.flatten()
        if self._compacts(boxes):
            boxes, image, valid = boxes[valid], image[valid], valid[valid]
        logits, deltas, boxes, weights = self._scored(features, boxes, image, batch.sizes)
        scores = torch.where(valid[:, None], logits.softmax(1)[:, : self.num_classes], 0.0)
        return candidates(scores, deltas, boxes, image, batch.sizes, weights, self.inference)

    def masks_of(self, features: list[Tensor], boxes: Tensor, image: Tensor, labels: Tensor) -> Tensor | None:
        """Mask probabilities [R, M, M] inside `boxes` [R, 4] (the network's pixels) of images `image` [R] for classes
        `labels` [R]; None without a mask branch."""
        if self.mask_pooler is None or self.mask_head is None:
            return None
        logits = self.mask_head(self._mask_regions(features, boxes, image), labels)
        return self.mask_head.masks.probabilities(logits, labels)

    def heatmaps_of(self, features: list[Tensor], boxes: Tensor, image: Tensor) -> Tensor | None:
        """Keypoints' logits [R, K, M, M] inside `boxes` [R, 4] (the network's pixels) of images `image` [R]; None
        without a keypoint branch."""
        if self.keypoint_pooler is None or self.keypoint_head is None:
            return None
        logits: Tensor = self.keypoint_head(self.keypoint_pooler(features, boxes, image))
        return logits

    def finish(self, batch: Batch, found: Found, masks: Tensor | None, heatmaps: Tensor | None) -> list[Detections]:
        """Detections of every image, in the pixels of its file, from those in the network's pixels with `masks`
        [R, M, M] (probabilities) and `heatmaps` [R, K, M, M] (logits) inside their boxes."""
        keypoints = None if heatmaps is None else heatmaps_to_keypoints(heatmaps, found.boxes)
        sizes, original = batch.sizes[found.image], batch.original_sizes[found.image]
        boxes = rescale(found.boxes, sizes, original)
        seen = box_ops.has_area(boxes).nonzero()[:, 0]  # once, where the host waits for it
        counts = torch.zeros(len(batch), dtype=torch.int64, device=boxes.device)
        split = counts.index_add_(0, found.image[seen], torch.ones_like(seen)).tolist()
        parts = [found_part[seen].split(split) for found_part in (boxes, found.scores, found.labels)]
        of_masks = [None] * len(batch) if masks is None else masks[seen].split(split)
        of_keypoints: Iterable[Tensor | None] = [None] * len(batch)
        if keypoints is not None:
            of_keypoints = keypoints_to_original(keypoints, sizes, original)[seen].split(split)
        return [Detections(*one) for one in zip(*parts, of_masks, of_keypoints, strict=True)]

    def _sample(self, batch: Batch, proposals: Proposals) -> RoISamples:
        return sample_rois(proposals, batch.boxes, batch.labels, batch.seeds, self.num_classes, self.roi)

    def _compacts(self, boxes: Tensor) -> bool:
        return self.compact or not boxes.is_cuda

    def _scored(
        self, features: list[Tensor], boxes: Tensor, image: Tensor, sizes: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Sequence[float]]:
        """Class logits [R, K + 1] and deltas [R, K or 1, 4], the boxes [R, 4] that these move, and their weights."""
        if isinstance(self.box_head, CascadeHead):
            logits, deltas, boxes = self.box_head(partial(self.box_pooler, features), boxes, image, sizes)
            return logits, deltas, boxes, self.box_head.weights[-1]
        logits, deltas = self.box_head(self._box_regions(features, boxes, image))
        return logits, deltas, boxes, self.roi.box_weights

    def _box_regions(self, features: list[Tensor], boxes: Tensor, image: Tensor) -> Tensor:
        return self.box_pooler(features, boxes, image)

    def _mask_regions(self, features: list[Tensor], boxes: Tensor, image: Tensor) -> Tensor:
        assert self.mask_pooler is not None
        return self.mask_pooler(features, boxes, image)

    def _head_losses(self, features: list[Tensor], samples: RoISamples, batch: Batch) -> dict[str, LossTerm]:
        """Of the box and mask branches."""
        losses = self._box_losses(features, samples, batch)
        if self.mask_head is not None:
            rois = self._mask_rois(samples)
            losses["mask"] = self._mask_loss_on(self._mask_regions(features, rois.boxes, rois.image), rois, batch)
        return losses

    def _box_losses(self, features: list[Tensor], samples: RoISamples, batch: Batch) -> dict[str, LossTerm]:
        rois = samples.flat(samples.used if self._compacts(samples.boxes) else None)
        if isinstance(self.box_head, CascadeHead):
            pool, compact = partial(self.box_pooler, features), self._compacts(samples.boxes)
            return self.box_head.losses(pool, rois, batch.boxes, batch.labels, batch.sizes, compact)
        return self._box_losses_on(self._box_regions(features, rois.boxes, rois.image), rois)

    def _box_losses_on(self, regions: Tensor, rois: RoIs) -> dict[str, LossTerm]:
        assert isinstance(self.box_head, BoxHead)
        logits, deltas = self.box_head(regions)
        deltas = self.box_head.of_class(deltas, rois.labels)
        target = box_ops.encode(rois.boxes, rois.truth, self.roi.box_weights)
        return box_losses(logits, deltas, rois.labels, target, rois.used, rois.foreground, self.roi.smooth_l1_beta)

    def _keypoint_loss(self, features: list[Tensor], samples: RoISamples, keypoints: Tensor) -> LossTerm:
        assert self.keypoint_pooler is not None
        assert self.keypoint_head is not None
        most = int(self.roi.samples * self.roi.positive_fraction)
        rois = samples.flat(samples.foreground if self._compacts(samples.boxes) else None, most)
        logits = self.keypoint_head(self.keypoint_pooler(features, rois.boxes, rois.image))
        cells, valid = keypoint_targets(keypoints[rois.image, rois.instance], rois.boxes, logits.shape[-1])
        return keypoint_loss(logits, cells, valid & rois.foreground[:, None])

    @property
    def _most_foreground(self) -> int:
        """An image: the foreground comes first, and there is never more of it than its fraction."""
        return int(self.roi.samples * self.roi.positive_fraction)

    def _mask_rois(self, samples: RoISamples) -> RoIs:
        return samples.flat(samples.foreground if self._compacts(samples.boxes) else None, self._most_foreground)

    def _mask_loss_on(self, regions: Tensor, rois: RoIs, batch: Batch) -> LossTerm:
        assert self.mask_head is not None
        if batch.masks is None:
            raise ValueError("a mask branch needs a batch with masks")
        logits = self.mask_head(regions, rois.labels)
        target = self.mask_target(batch.masks, rois.boxes, rois.image, rois.instance, logits.shape[-1])
        return self.mask_head.masks.loss(logits, rois.labels, target, rois.foreground)


def _given(batch: Batch) -> Proposals:
    if batch.proposals is None:
        raise ValueError("a detector without an RPN needs a batch with proposals")
    boxes, scores = batch.proposals[..., :4], batch.proposals[..., 4]
    return Proposals(boxes, scores, scores > -torch.inf)
