"""What all bodies share: stages whose maps the neck sees, the last of which heads may take for their own."""

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from mrbench.modeling.norm import held_statistics

FROZEN_INSTEAD = ("bn", "sync_bn")


class Body(nn.Module):
    """Stages C2..C5 after a stem, of `out_channels` at `strides`; `stages` are the names of their modules.

    recompute: keep only what goes into a stage, and compute it again for its gradients (Chen et al. 2016).
    """

    recompute = False

    stages: list[str]
    out_channels: list[int]
    strides: list[int]

    def stem_features(self, x: Tensor) -> Tensor:
        """[B, 3, H, W] -> what the first stage takes."""
        raise NotImplementedError

    def forward(self, x: Tensor) -> list[Tensor]:
        """[B, 3, H, W] -> C2.., one map a stage."""
        x = self.stem_features(x)
        features = []
        for name in self.stages:
            stage = self.get_submodule(name)
            x = self._recomputed(stage, x) if self.recompute and torch.is_grad_enabled() else stage(x)
            features.append(x)
        return features

    def _recomputed(self, stage: nn.Module, x: Tensor) -> Tensor:
        def contexts() -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
            return nullcontext(), held_statistics(stage)  # the second time running statistics have seen the batch

        out: Tensor = checkpoint(stage, x, use_reentrant=False, context_fn=contexts, preserve_rng_state=False)
        return out

    def take_last_stage(self) -> tuple[nn.Module, int]:
        """Take the last stage off, for the heads to run on every region: it, and the channels that it puts out."""
        parent, _, child = self.stages.pop().rpartition(".")
        owner = self.get_submodule(parent)
        stage = owner.get_submodule(child)
        delattr(owner, child)
        self.strides.pop()
        return stage, self.out_channels.pop()


def norm_of_stage(norm: str, stage: int, freeze_at: int) -> str:
    """Batch norms in stages (0 the stem, 1 C2, ...) that keep their weights become frozen ones (Detectron2,
    modeling/backbone/resnet.py, `ResNet.freeze`)."""
    return "frozen_bn" if stage < freeze_at and norm in FROZEN_INSTEAD else norm
