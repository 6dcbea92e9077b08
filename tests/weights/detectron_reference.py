"""Detectron's (Caffe2) Mask R-CNN with FPN on its blobs, written plainly from its conventions, a picture at a time.

Boxes are (x1, y1, x2, y2) with the last pixel inside, so that a width is x2 - x1 + 1 (utils/boxes.py); anchors as of
modeling/generate_anchors.py; proposals of ops/generate_proposals.py, gathered and spread over the levels as in
ops/collect_and_distribute_fpn_rpn_proposals.py and utils/fpn.py (`map_rois_to_fpn_levels`); tests as in core/test.py
(`im_detect_bbox`, `box_results_with_nms_and_limit`, `im_detect_mask`), for a picture that is not resized.
"""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.ops import roi_align

PIXEL_MEANS = np.array([102.9801, 115.9465, 122.7717], np.float32)  # blue, green, red
BLOCKS = {2: 3, 3: 4, 4: 6, 5: 3}
SIZES = {2: 32, 3: 64, 4: 128, 5: 256, 6: 512}


class Detectron:
    def __init__(self, blobs: dict[str, np.ndarray], post_nms: int) -> None:
        self.blobs = {name: torch.from_numpy(np.array(value)) for name, value in blobs.items()}
        self.post_nms = post_nms

    def detect(self, bgr: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """uint8 [H, W, 3], both sides multiples of 64 -> boxes [N, 4], scores [N], classes [N] from 1 on, and mask
        probabilities [N, 28, 28], by falling score."""
        height, width = bgr.shape[:2]
        x = torch.from_numpy(bgr.astype(np.float32) - PIXEL_MEANS).permute(2, 0, 1)[None]
        maps = self.pyramid(x)
        proposals = self.proposals(maps, height, width)
        pooled = self.pool(maps, proposals, 7).flatten(1)
        hidden = F.relu(self.fc("fc7", F.relu(self.fc("fc6", pooled))))
        scores = self.fc("cls_score", hidden).softmax(1).numpy()
        deltas = self.fc("bbox_pred", hidden).numpy()
        found = []
        for c in range(1, scores.shape[1]):
            boxes = clip(transform(proposals, deltas[:, 4 * c : 4 * c + 4], (10, 10, 5, 5)), height, width)
            index = np.where(scores[:, c] > 0.05)[0]
            keep = index[nms(boxes[index], scores[index, c], 0.5)]
            found += [(scores[i, c], c, boxes[i]) for i in keep]
        found = sorted(found, key=lambda one: -one[0])[:100]
        boxes = np.array([box for _, _, box in found], np.float32)
        classes = np.array([c for _, c, _ in found])
        x = self.pool(maps, boxes, 14)
        for number in (1, 2):
            x = F.relu(self.conv(f"_[mask]_fcn{number}", x, padding=1))
        x = F.relu(F.conv_transpose2d(x, self.blobs["conv5_mask_w"], self.blobs["conv5_mask_b"], stride=2))
        masks = self.conv("mask_fcn_logits", x).sigmoid().numpy()[np.arange(len(classes)), classes]
        return boxes, np.array([score for score, _, _ in found]), classes, masks

    def conv(self, name: str, x: Tensor, stride: int = 1, padding: int = 0) -> Tensor:
        return F.conv2d(x, self.blobs[f"{name}_w"], self.blobs.get(f"{name}_b"), stride, padding)

    def fc(self, name: str, x: Tensor) -> Tensor:
        return x @ self.blobs[f"{name}_w"].T + self.blobs[f"{name}_b"]

    def affine(self, name: str, x: Tensor) -> Tensor:
        return x * self.blobs[f"{name}_s"][:, None, None] + self.blobs[f"{name}_b"][:, None, None]

    def pyramid(self, x: Tensor) -> dict[int, Tensor]:
        """P2 to P6."""
        x = F.relu(self.affine("res_conv1_bn", self.conv("conv1", x, 2, 3)))
        x = F.max_pool2d(x, 3, 2, 1)
        stages = {}
        for stage, count in BLOCKS.items():
            for block in range(count):
                name, stride = f"res{stage}_{block}", 2 if stage > 2 and block == 0 else 1
                y = F.relu(self.affine(f"{name}_branch2a_bn", self.conv(f"{name}_branch2a", x, stride)))
                y = F.relu(self.affine(f"{name}_branch2b_bn", self.conv(f"{name}_branch2b", y, padding=1)))
                y = self.affine(f"{name}_branch2c_bn", self.conv(f"{name}_branch2c", y))
                if block == 0:
                    x = self.affine(f"{name}_branch1_bn", self.conv(f"{name}_branch1", x, stride))
                x = F.relu(x + y)
            stages[stage] = x
        top = self.conv("fpn_inner_res5_2_sum", stages[5])
        maps = {5: self.conv("fpn_res5_2_sum", top, padding=1)}
        for stage in (4, 3, 2):
            last = f"res{stage}_{BLOCKS[stage] - 1}_sum"
            lateral = self.conv(f"fpn_inner_{last}_lateral", stages[stage])
            top = lateral + top.repeat_interleave(2, 2).repeat_interleave(2, 3)
            maps[stage] = self.conv(f"fpn_{last}", top, padding=1)
        maps[6] = maps[5][:, :, ::2, ::2]
        return maps

    def proposals(self, maps: dict[int, Tensor], height: int, width: int) -> np.ndarray:
        boxes, scores = [], []
        for level in range(2, 7):
            x = F.relu(self.conv("conv_rpn_fpn2", maps[level], padding=1))
            score = self.conv("rpn_cls_logits_fpn2", x)[0].permute(1, 2, 0).flatten().sigmoid().numpy()
            delta = self.conv("rpn_bbox_pred_fpn2", x)[0].permute(1, 2, 0).reshape(-1, 4).numpy()
            stride, rows, columns = 2**level, x.shape[2], x.shape[3]
            anchors = anchors_of(stride, SIZES[level])
            shifts = np.array([[c, r, c, r] for r in range(rows) for c in range(columns)]) * stride
            anchor = (shifts[:, None] + anchors[None]).reshape(-1, 4)
            order = np.argsort(-score, kind="stable")[:1000]
            box = clip(transform(anchor[order], delta[order], (1, 1, 1, 1)), height, width)
            keep = nms(box, score[order], 0.7)[: self.post_nms]
            boxes.append(box[keep])
            scores.append(score[order][keep])
        best = np.argsort(-np.concatenate(scores), kind="stable")[: self.post_nms]
        return np.concatenate(boxes)[best]

    def pool(self, maps: dict[int, Tensor], boxes: np.ndarray, size: int) -> Tensor:
        areas = (boxes[:, 2] - boxes[:, 0] + 1) * (boxes[:, 3] - boxes[:, 1] + 1)
        levels = np.clip(np.floor(4 + np.log2(np.sqrt(areas) / 224 + 1e-6)), 2, 5).astype(int)
        pooled = []
        for box, level in zip(boxes, levels, strict=True):
            roi = torch.tensor([[0, *box]], dtype=torch.float32)
            pooled.append(roi_align(maps[level], roi, size, 1 / 2**level, 2, aligned=False))
        return torch.cat(pooled)


def anchors_of(stride: int, size: int) -> np.ndarray:
    """Boxes around that of the first cell, (0, 0, stride - 1, stride - 1), by ratio."""
    centre, anchors = (stride - 1) / 2, []
    for ratio in (0.5, 1.0, 2.0):
        w = np.round(np.sqrt(stride * stride / ratio))
        h = np.round(w * ratio)
        w, h = w * size / stride, h * size / stride
        anchors.append([centre - (w - 1) / 2, centre - (h - 1) / 2, centre + (w - 1) / 2, centre + (h - 1) / 2])
    return np.array(anchors)


def transform(boxes: np.ndarray, deltas: np.ndarray, weights: tuple[int, int, int, int]) -> np.ndarray:
    dx, dy, dw, dh = (deltas / np.array(weights)).T
    w, h = boxes[:, 2] - boxes[:, 0] + 1, boxes[:, 3] - boxes[:, 1] + 1
    x, y = boxes[:, 0] + w / 2 + dx * w, boxes[:, 1] + h / 2 + dy * h
    most = np.log(1000 / 16)
    w, h = w * np.exp(np.minimum(dw, most)), h * np.exp(np.minimum(dh, most))
    return np.stack([x - w / 2, y - h / 2, x + w / 2 - 1, y + h / 2 - 1], 1)


def clip(boxes: np.ndarray, height: int, width: int) -> np.ndarray:
    return np.clip(boxes, 0, np.array([width, height, width, height]) - 1)


def nms(boxes: np.ndarray, scores: np.ndarray, threshold: float) -> np.ndarray:
    x1, y1, x2, y2 = boxes.T
    areas = (x2 - x1 + 1) * (y2 - y1 + 1)
    order, kept = np.argsort(-scores, kind="stable"), []
    while len(order):
        i, rest = order[0], order[1:]
        kept.append(i)
        w = np.maximum(0, np.minimum(x2[i], x2[rest]) - np.maximum(x1[i], x1[rest]) + 1)
        h = np.maximum(0, np.minimum(y2[i], y2[rest]) - np.maximum(y1[i], y1[rest]) + 1)
        order = rest[w * h / (areas[i] + areas[rest] - w * h) <= threshold]
    return np.array(kept, int)
