"""What a mask branch's outputs mean: a mask a class, or one class at every pixel (He et al. 2017, table 2b)."""

from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from mrbench.modeling.losses import LossTerm
from mrbench.modeling.widen import at_least_float32


class MaskPredictor(Protocol):
    """The last layer of a mask branch, for what its trunk says of R regions."""

    def __call__(self, x: Tensor) -> Tensor:
        """Logits of every channel: [R, channels, M, M]."""

    def of_channel(self, x: Tensor, channel: Tensor) -> Tensor:
        """Logits of one channel of each region, given by int64 [R]: [R, M, M], float32."""


class BinaryMasks:
    """Every class has a mask of its own, a yes or no at each pixel; classes do not compete.

    Only the region's class is ever asked for - the ground truth's in training, the predicted one at inference - so
    only its channel is computed. The labels of background regions give any channel.
    """

    def __init__(self, classes: int) -> None:
        self.classes = classes
        self.channels = classes

    def logits(self, predictor: MaskPredictor, x: Tensor, labels: Tensor) -> Tensor:
        """-> [R, M, M] for classes `labels` int64 [R]."""
        return predictor.of_channel(x, labels.clamp(max=self.classes - 1))

    def loss(self, logits: Tensor, labels: Tensor, target: Tensor, foreground: Tensor) -> LossTerm:
        """Binary cross entropy of every pixel of every foreground region.

        logits [R, M, M]; labels int64 [R]; target float [R, M, M] in 0..1; foreground bool [R].
        """
        each = F.binary_cross_entropy_with_logits(logits, target.to(logits.dtype), reduction="none")
        return _over_foreground(each, foreground)

    def probabilities(self, logits: Tensor, labels: Tensor) -> Tensor:
        """-> [R, M, M] of classes `labels` [R]."""
        return logits.sigmoid()


class MultinomialMasks:
    """Every pixel is of one class, or of the background: classes compete.

    "A per-pixel softmax and a multinomial cross-entropy loss", as fully convolutional networks for semantic
    segmentation use it (He et al. 2017, section 3; Long et al. 2015). The paper does not say what a pixel beside the
    object should be; here, as there, it is the background, which is the last channel. A pixel's probability is that
    of the class which the box branch predicts, among all classes and the background.
    """

    def __init__(self, classes: int) -> None:
        self.classes = classes
        self.channels = classes + 1

    def logits(self, predictor: MaskPredictor, x: Tensor, labels: Tensor) -> Tensor:
        """-> [R, classes + 1, M, M]."""
        return at_least_float32(predictor(x))

    def loss(self, logits: Tensor, labels: Tensor, target: Tensor, foreground: Tensor) -> LossTerm:
        """Cross entropy of every pixel of every foreground region, whose class is wanted where the mask is at least
        half, and the background elsewhere.

        logits [R, classes + 1, M, M]; labels int64 [R]; target float [R, M, M] in 0..1; foreground bool [R].
        """
        own = labels.clamp(max=self.classes - 1)[:, None, None]
        wanted = torch.where(target >= 0.5, own, self.classes)
        return _over_foreground(F.cross_entropy(logits, wanted, reduction="none"), foreground)

    def probabilities(self, logits: Tensor, labels: Tensor) -> Tensor:
        """-> [R, M, M] of classes `labels` [R]."""
        own = labels.clamp(max=self.classes - 1)
        return logits.softmax(1)[torch.arange(len(own), device=own.device), own]


def _over_foreground(each: Tensor, foreground: Tensor) -> LossTerm:
    """each [R, M, M]: summed over the foreground's pixels, and counted by them."""
    total = torch.where(foreground[:, None, None], each, 0.0).sum()
    return LossTerm(total, foreground.sum().to(each.dtype) * float(each.shape[-2] * each.shape[-1]))


def mask_meaning(loss: str, num_classes: int, class_agnostic: bool) -> BinaryMasks | MultinomialMasks:
    """By the name of the loss: sigmoid or softmax. Class-agnostic masks tell the object from what is not."""
    classes = 1 if class_agnostic else num_classes
    return BinaryMasks(classes) if loss == "sigmoid" else MultinomialMasks(classes)
