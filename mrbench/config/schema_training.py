"""How a model is trained and tested: the part of the configuration between data and result."""

from dataclasses import dataclass, field

from mrbench.config.limits import choice, number, values


@dataclass
class ScheduleConfig:
    """How long, how fast, and what a loss is divided by.

    loss_normalisation: global divides a loss by its samples in the whole batch, so that the number of devices changes
    nothing; per_device lets each process divide by its own, and averages their gradients, as Detectron2 does (its
    losses see one GPU's images, and DistributedDataParallel takes the mean): a sample counts less on a device that has
    many.
    """

    images_per_batch: int = number(16, 1)  # over all devices
    # the images_per_batch that rate, lengths and milestones are written for: where it is another they are made to fit
    # (mrbench.config.scaling), and this becomes null, as in a schedule that is written for its batch
    scale_to_batch: int | None = number(None, 1)
    iterations: int = number(90000, 0)
    decay: str = choice("steps", "steps", "cosine")
    milestones: list[int] = values(60000, 80000)
    gamma: float = number(0.1, 0, 1)
    warmup_iterations: int = number(1000, 0)
    warmup_factor: float = number(0.001, 0, 1)
    loss_normalisation: str = choice("global", "global", "per_device")


@dataclass
class LrFactorsConfig:
    """What the learning rate is multiplied by in each part of the network; 0 keeps a part as it is."""

    backbone: float = number(1.0, 0)
    neck: float = number(1.0, 0)
    rpn: float = number(1.0, 0)
    box_head: float = number(1.0, 0)  # with the fifth stage, where that is the heads' (C4)
    mask_head: float = number(1.0, 0)
    keypoint_head: float = number(1.0, 0)


@dataclass
class OptimizerConfig:
    kind: str = choice("sgd", "sgd", "adamw")
    lr: float = number(0.02, 0)
    momentum: float = number(0.9, 0, 1)
    betas: list[float] = values(0.9, 0.999)
    weight_decay: float = number(1e-4, 0)
    weight_decay_norm: float = number(0.0, 0)  # scales and shifts of normalisation layers
    weight_decay_bias: float | None = number(None, 0)  # null: as weight_decay
    lr_factors: LrFactorsConfig = field(default_factory=LrFactorsConfig)
    lr_factor_bias: float = number(1.0, 0)  # of every bias, besides its part's (Detectron2's SOLVER.BIAS_LR_FACTOR)
    # Detectron2's SOLVER.CLIP_GRADIENTS with CLIP_TYPE full_model, and value
    clip_norm: float | None = number(None, 0)  # largest L2 norm of the whole gradient
    clip_value: float | None = number(None, 0)  # largest size of a gradient's element
    # moving average of the weights, which are what is evaluated and kept: after every update it is ema of itself and
    # 1 - ema of the weights (timm's ModelEmaV2). 0: none
    ema: float = number(0.0, 0, 1)


@dataclass
class PrecisionConfig:
    kind: str = choice("fp32", "fp32", "tf32", "fp16", "bf16")
    initial_scale: float = number(65536.0, 1)  # fp16: loss scale to begin with
    # processes exchange gradients in float16, whatever the kind (torch's fp16_compress_hook; Detectron2's
    # train.ddp.fp16_compression, which its new baselines train with). One process has nothing to exchange.
    fp16_gradients: bool = False


@dataclass
class TestTimeConfig:
    """Test-time augmentation (He et al. 2017, appendix B: scales of 400 to 1200 in steps of 100, and flips), in every
    evaluation; see `mrbench.evaluation.tta`."""

    enabled: bool = False
    # short sides of the picture in pixels, whatever augmentation.resize is; empty: the size of plain inference alone
    short_edge: list[int] = field(default_factory=list)
    max_size: int = number(4000, 1)  # of the long side, with short_edge (Detectron2's TEST.AUG.MAX_SIZE)
    flip: bool = True  # each size mirrored as well
    # a box goes to the mean of those of all views that overlap it by this IoU or more; null: it stays where its view
    # saw it (Detectron's TEST.BBOX_VOTE.VOTE_TH, 0.9 in its published X-152; Detectron2 has no vote)
    vote: float | None = number(0.8, 0, 1)


@dataclass
class EvaluationConfig:
    period: int = number(0, 0)  # iterations between evaluations; 0: only at the end
    areas: list[float] = values(1024.0, 9216.0)  # small | medium | large, square pixels (COCO: 32^2, 96^2)
    max_detections: int = number(100, 1)
    tta: TestTimeConfig = field(default_factory=TestTimeConfig)
