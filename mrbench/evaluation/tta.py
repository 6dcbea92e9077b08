"""Test-time augmentation (He et al. 2017, appendix B): a picture at several sizes and mirrored, looked at together."""

from collections.abc import Sequence
from dataclasses import fields, replace

import torch
from torch import Tensor

from mrbench.config.schema_training import TestTimeConfig
from mrbench.data.batch import Batch, Views
from mrbench.data.coco import Category
from mrbench.data.keypoints import mirror_order
from mrbench.errors import UserError
from mrbench.modeling import boxes as box_ops
from mrbench.modeling.detector import MaskRCNN
from mrbench.modeling.postprocess import Detections, Found, best, rescale


@torch.no_grad()
def detect_views(model: MaskRCNN, views: Views, mirror: Sequence[int], config: TestTimeConfig) -> list[Detections]:
    """Detections of every image, in the pixels of its file, as `MaskRCNN.detect` gives them. Call it in eval mode.

    Boxes: all views' boxes above the score threshold together, then suppressed class by class and limited once
    (Detectron, core/test.py, `im_detect_bbox_aug` with its default UNION; Detectron2's `GeneralizedRCNNWithTTA`
    suppresses in every view first). Scores stay those of the view that a box is from. With `config.vote` its place
    is the mean over the views, see `_voted`.
    Masks: of the boxes so found every view's probabilities, mirrored back, and their mean (`im_detect_mask_aug` with
    SOFT_AVG; Detectron2's `_reduce_pred_masks`).
    Keypoints: likewise the mean of the heatmaps' logits before positions are read (`im_detect_keypoints_aug` with
    HM_AVG; Detectron2 has none). In a mirrored view keypoint k is looked for by channel `mirror[k]`.

    Boxes are merged, and keypoints read, in the pixels of the largest view. So with one view the result is that of
    `detect`, bit for bit. The features of all views are held at once: their memory is the sum of the views'.
    """
    frame = views.batches[0]
    features = [model.features(batch) for batch in views.batches]
    seen = list(zip(features, views.batches, views.flipped, strict=True))
    found = [_to_frame(model.candidates(maps, view), view, frame, flipped) for maps, view, flipped in seen]
    merged = best(_joined(found), len(frame), model.num_classes, model.inference)
    if config.vote is not None and len(found) > 1:
        merged = _voted(merged, _joined([_suppressed(one, model) for one in found]), config.vote)
    masks, heatmaps = [], []
    for maps, view, flipped in seen:
        boxes = _to_view(merged, frame, view, flipped)
        mask = model.masks_of(maps, boxes, merged.image, merged.labels)
        if mask is not None:
            masks.append(mask.flip(-1) if flipped else mask)
        heatmap = model.heatmaps_of(maps, boxes, merged.image)
        if heatmap is not None:
            heatmaps.append(heatmap[:, list(mirror)].flip(-1) if flipped else heatmap)
    return model.finish(frame, merged, _mean(masks), _mean(heatmaps))


def mirrored_keypoints(categories: Sequence[Category], keypoints: int) -> list[int]:
    """For each of a model's keypoints the one that takes its place in a mirrored picture.

    Raises UserError where no category, or categories in different ways, name so many keypoints.
    """
    names = {category.keypoints for category in categories if len(category.keypoints) == keypoints}
    if len(names) != 1:
        raise UserError(
            f"The data set does not name the model's {keypoints} keypoints, so left and right cannot be told",
            "Set evaluation.tta.flip=false.",
        )
    return mirror_order(names.pop())


def _joined(found: Sequence[Found]) -> Found:
    """All of them in one."""
    return Found(*(torch.cat([getattr(one, f.name) for one in found]) for f in fields(Found)))


def _suppressed(found: Found, model: MaskRCNN) -> Found:
    """What suppression class by class leaves of a view's candidates."""
    groups = found.image * model.num_classes + found.labels
    keep = box_ops.suppress(found.boxes, found.scores, groups, model.inference.nms_threshold)
    return Found(*(getattr(found, f.name)[keep] for f in fields(Found)))


def _voted(merged: Found, voters: Found, threshold: float) -> Found:
    """Every box at the mean, weighted by score, of the voters of its image and class that overlap it by `threshold`
    (IoU) or more (Gidaris & Komodakis 2015; Detectron, utils/boxes.py, `box_voting`, which lets all candidates vote).

    The voters are those that suppression leaves in every view, so that one object has one vote a view.
    """
    same = (merged.image[:, None] == voters.image) & (merged.labels[:, None] == voters.labels)
    near = same & (box_ops.iou(merged.boxes[None], voters.boxes)[0] >= threshold)
    weights = torch.where(near, voters.scores, 0.0)
    total = weights.sum(1, keepdim=True)
    return replace(merged, boxes=torch.where(total > 0, weights @ voters.boxes / total, merged.boxes))


def _to_frame(found: Found, view: Batch, frame: Batch, flipped: bool) -> Found:
    """What was found in a view, in the pixels of `frame`."""
    boxes = box_ops.mirror(found.boxes, view.sizes[found.image]) if flipped else found.boxes
    return replace(found, boxes=rescale(boxes, view.sizes[found.image], frame.sizes[found.image]))


def _to_view(found: Found, frame: Batch, view: Batch, flipped: bool) -> Tensor:
    """The boxes, which are in the pixels of `frame`, in those of a view: [R, 4]."""
    sizes = view.sizes[found.image]
    boxes = rescale(found.boxes, frame.sizes[found.image], sizes)
    return box_ops.mirror(boxes, sizes) if flipped else boxes


def _mean(of_views: Sequence[Tensor]) -> Tensor | None:
    return torch.stack(list(of_views)).mean(0) if of_views else None
