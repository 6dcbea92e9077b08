"""The typed configuration of a run: its model, its data, and the whole. Every axis of ablation is one plain value.

`runtime` and `launcher` of a `RunConfig` say where and how it is carried out; the rest makes its identity. Allowed
values stand beside the field (`mrbench.config.limits`) and are enforced by `mrbench.config.validate`.
"""

from dataclasses import dataclass, field

from mrbench.config.limits import choice, number, values
from mrbench.config.schema_execution import LauncherConfig, RuntimeConfig
from mrbench.config.schema_training import EvaluationConfig, OptimizerConfig, PrecisionConfig, ScheduleConfig

NORMS = ("none", "frozen_bn", "bn", "sync_bn", "gn")


@dataclass
class BackboneConfig:
    """ResNet and ResNeXt bodies (He et al. 2016, Xie et al. 2017) and RegNets (Radosavovic et al. 2020), built from
    torchvision's blocks."""

    kind: str = choice("resnet", "resnet", "regnet_x_4gf", "regnet_y_4gf")
    depth: int = field(default=50, metadata={"choices": (10, 18, 34, 50, 101, 152)})
    # channels of the stem; a bottleneck stage puts out 4x, 8x, 16x, 32x this. RegNets scale with it; 64 as published
    width: int = number(64, 8)
    stem: str = choice("7x7", "7x7", "3x3")  # 7x7/2 and max-pool, or two 3x3/2 convolutions
    norm: str = choice("frozen_bn", *NORMS)
    freeze_at: int = number(2, 0, 5)  # stages kept at their initial weights: 1 stem, 2 stem and res2 (Detectron2)
    groups: int = number(1, 1)  # ResNeXt: groups of a 3x3 convolution; 32x8d is groups 32, width_per_group 8
    width_per_group: int = number(64, 1)  # ResNeXt: channels a group in the first stage
    dilated_c5: bool = False  # the last stage at stride 16 with dilation 2 (DC5)
    non_local: int = number(0, 0)  # non-local blocks in the fourth stage (Wang et al. 2018)
    deformable: list[int] = field(default_factory=list)  # stages (3, 4, 5) whose 3x3 convolutions are deformable
    stride_in_1x1: bool = False  # True: MSRA's and Detectron's weights; False: torchvision's
    weights: str | None = None  # "imagenet" (torchvision's, downloaded by torch hub), a file, or null for random


@dataclass
class NeckConfig:
    """What the RPN and the heads see: a feature pyramid (Lin et al. 2017), or one map of the body.

    c4: the fourth stage at stride 16, with the fifth as the heads' own (box_head.kind and mask_head.kind res5);
    c5: the fifth stage, at stride 32, or 16 with backbone.dilated_c5.
    """

    kind: str = choice("fpn", "fpn", "c4", "c5")
    fuse: str = choice("sum", "sum", "avg")  # how a level is joined with the one above it
    channels: int = number(256, 8)
    norm: str = choice("none", *NORMS)
    last_level: str = choice("pool", "pool", "none")  # pool: P6 by subsampling P5, seen by the RPN only


@dataclass
class RPNConfig:
    """Region proposal network (Ren et al. 2015), shared over the levels of the pyramid.

    mode: joint trains it with the heads (Detectron2's GeneralizedRCNN); only is a network without heads (its
    ProposalNetwork); precomputed has heads but no RPN, and reads proposals from data.train.proposals and
    data.val.proposals (its PrecomputedProposals with MODEL.LOAD_PROPOSALS; Fast R-CNN).
    anchor_rounding: none leaves their corners as they come (Detectron2, tensorpack); corners puts them on whole pixels
    around the origin (torchvision); sides makes them from boxes of whole pixels as large as the stride (Detectron).
    anchor_offset: where their centres lie in a cell, in parts of the stride: 0 (torchvision, Detectron2's default of
    MODEL.ANCHOR_GENERATOR.OFFSET, tensorpack) or 0.5 (Detectron, counted with pooler.inclusive).
    border: anchors that reach over the picture's border by so many pixels or more take no part in training. null: all
    take part (Detectron2, BOUNDARY_THRESH -1); 0: Ren et al. 2015, section 3.3, and Detectron's RPN_STRADDLE_THRESH.
    """

    mode: str = choice("joint", "joint", "only", "precomputed")
    convs: int = number(1, 1)  # 3x3 convolutions before the two predictors
    anchor_sizes: list[float] = values(32, 64, 128, 256, 512)  # one a level, or all on a single map; pixels
    anchor_ratios: list[float] = values(0.5, 1.0, 2.0)  # height over width
    anchor_rounding: str = choice("none", "none", "corners", "sides")
    anchor_offset: float = number(0.0, 0, 1)
    foreground_iou: float = number(0.7, 0, 1)
    background_iou: float = number(0.3, 0, 1)
    samples: int = number(256, 1)  # anchors an image that the loss sees
    positive_fraction: float = number(0.5, 0, 1)
    pre_nms_train: int = number(2000, 1)  # a level
    pre_nms_test: int = number(1000, 1)
    post_nms_train: int = number(1000, 1)  # over all levels
    post_nms_test: int = number(1000, 1)
    nms_threshold: float = number(0.7, 0, 1)
    smooth_l1_beta: float = number(0.0, 0)  # 0: L1 (Detectron2); the paper's code 1/9
    border: float | None = number(None, 0)


@dataclass
class PoolerConfig:
    """From a region of interest to a feature map of fixed size."""

    kind: str = choice("roi_align", "roi_align", "roi_pool", "roi_warp")  # warp: quantised region, bilinear (Dai 2016)
    aggregate: str = choice("avg", "avg", "max")  # of a bin's points; roi_pool always takes the maximum
    method: str = choice("torchvision", "torchvision", "separable")  # how RoIAlign is computed; same result to 2e-5
    sampling_ratio: int = number(0, 0)  # points a bin and axis; 0: as many as the bin has pixels (torchvision only)
    aligned: bool = True  # half-pixel correction (Detectron2's ROIAlignV2)
    # Detectron's boxes: the second corner is the last pixel inside, not the border, and is where bins are cut from
    inclusive: bool = False
    canonical_size: float = number(224.0, 1)  # a region of this size (pixels) goes to `canonical_level`
    canonical_level: int = number(4, 2, 5)
    box_size: int = number(7, 1)
    mask_size: int = number(14, 1)
    keypoint_size: int = number(14, 1)


@dataclass
class RoIConfig:
    """Which proposals the heads are trained on, and how boxes are coded."""

    samples: int = number(512, 1)  # an image
    positive_fraction: float = number(0.25, 0, 1)
    foreground_iou: float = number(0.5, 0, 1)
    box_weights: list[float] = values(10.0, 10.0, 5.0, 5.0)
    smooth_l1_beta: float = number(0.0, 0)


@dataclass
class BoxHeadConfig:
    kind: str = choice("fc", "fc", "res5")  # res5: the body's fifth stage on every region (C4)
    cascade: list[float] = field(default_factory=list)  # IoU of each stage of a Cascade R-CNN, as [0.5, 0.6, 0.7]
    convs: int = number(0, 0)
    conv_channels: int = number(256, 1)
    fcs: int = number(2, 0)
    fc_channels: int = number(1024, 1)
    norm: str = choice("none", *NORMS)
    class_agnostic: bool = False  # one box regression for all classes


@dataclass
class MaskHeadConfig:
    enabled: bool = True  # False: Faster R-CNN
    # mlp: fully connected layers; res5: fcn on the fifth stage of the body, run once for boxes and masks (C4)
    kind: str = choice("fcn", "fcn", "mlp", "res5")
    loss: str = choice("sigmoid", "sigmoid", "softmax")  # a binary mask a class, or one over classes at each pixel
    fcs: int = number(2, 1)  # kind=mlp: hidden layers
    fc_channels: int = number(1024, 1)
    convs: int = number(4, 0)
    channels: int = number(256, 1)
    norm: str = choice("none", *NORMS)
    class_agnostic: bool = False


@dataclass
class KeypointHeadConfig:
    """The keypoint branch (He et al. 2017, section 5): one-hot masks of 56x56, a softmax over positions."""

    enabled: bool = False
    keypoints: int = number(17, 1)
    convs: int = number(8, 0)
    channels: int = number(512, 1)


@dataclass
class InferenceConfig:
    score_threshold: float = number(0.05, 0, 1)
    nms_threshold: float = number(0.5, 0, 1)
    detections_per_image: int = number(100, 1)
    mask_threshold: float = number(0.5, 0, 1)


@dataclass
class ModelConfig:
    name: str = "mask_rcnn"
    norm: str = choice("frozen_bn", *NORMS)  # the parts below refer to it as ${model.norm} where they follow it
    group_size: int | None = number(None, 1)  # gn: channels a group; null: 32 groups (Wu & He 2018)
    pixel_mean: list[float] = values(123.675, 116.28, 103.53)  # RGB, 0..255
    pixel_std: list[float] = values(58.395, 57.12, 57.375)
    weights: str | None = None  # a file to start from: mrbench's, Detectron2's, torchvision's, ... (docs/weights.md)
    # same: the weights' classes are the data set's. by_name: theirs are others; what belongs to a category of the same
    # name is taken, as is the background, and the rest begins at random (Cityscapes from COCO: He et al. 2017, app. A)
    weights_classes: str = choice("same", "same", "by_name")
    weights_mismatch: str = choice("refuse", "refuse", "tell")  # tell: load what fits and name the rest
    backbone: BackboneConfig = field(default_factory=BackboneConfig)
    neck: NeckConfig = field(default_factory=NeckConfig)
    rpn: RPNConfig = field(default_factory=RPNConfig)
    pooler: PoolerConfig = field(default_factory=PoolerConfig)
    roi: RoIConfig = field(default_factory=RoIConfig)
    box_head: BoxHeadConfig = field(default_factory=BoxHeadConfig)
    mask_head: MaskHeadConfig = field(default_factory=MaskHeadConfig)
    keypoint_head: KeypointHeadConfig = field(default_factory=KeypointHeadConfig)
    inference: InferenceConfig = field(default_factory=InferenceConfig)


@dataclass
class ShapesConfig:
    """The embedded data set of `data=shapes`; see `mrbench.data.shapes`."""

    seed: int = number(0, 0)
    image_size: int = number(128, 32)
    classes: int = number(4, 1, 6)
    train_images: int = number(1500, 1)
    val_images: int = number(200, 1)
    instances: list[int] = values(1, 6)
    diameters: list[float] = values(9.0, 80.0)  # pixels, drawn log-uniformly
    cue: float = number(0.9, 0, 1)  # how often the colour tells the class: the difficulty knob
    clutter: int = number(6, 0)  # strokes and arcs in the background
    noise: float = number(8.0, 0)  # standard deviation of a pixel, 0..255
    contrast: float = number(70.0, 0)  # least colour distance from what lies beneath
    crowd: float = number(0.05, 0, 1)  # share of images with a crowd region


@dataclass
class SplitConfig:
    """One split. Null means: look where COCO, and folders like it, keep it (`mrbench.data.layout`)."""

    annotations: str | None = None  # JSON, relative to data.root
    images: str | None = None  # folder, relative to data.root
    proposals: str | None = None  # file of `mrbench proposals` or Detectron2, for model.rpn.mode=precomputed


@dataclass
class DataConfig:
    kind: str = choice("shapes", "shapes", "coco_folder")
    name: str | None = None  # null: the folder's own name, with a fingerprint of its annotations in the run's identity
    root: str | None = None
    train: SplitConfig = field(default_factory=SplitConfig)
    val: SplitConfig = field(default_factory=SplitConfig)
    # Trained on together with `train`, as trainval35k is: each with its annotations and images; categories of the same
    # names, image ids may be used again.
    train_more: list[SplitConfig] = field(default_factory=list)
    shapes: ShapesConfig = field(default_factory=ShapesConfig)
    on_error: str = choice("raise", "raise", "skip")  # annotations that are broken
    keep_empty: bool = False  # train on images without annotations


@dataclass
class AugmentationConfig:
    """What happens to a picture before the network sees it. Sizes in pixels."""

    resize: str = choice("short_edge", "none", "short_edge", "jitter")
    short_edge: list[int] = values(800)
    # of short_edge, for each training image. choice: one of those listed; range: any whole number from the first to
    # the second, both included (Detectron2's INPUT.MIN_SIZE_TRAIN_SAMPLING)
    short_edge_sampling: str = choice("choice", "choice", "range")
    max_size: int = number(1333, 1)
    # null: the first of short_edge, or with jitter the long side at jitter_size; a number holds with any resize
    test_short_edge: int | None = number(None, 1)
    jitter: list[float] = values(0.1, 2.0)  # resize=jitter: range of the scale (Ghiasi et al. 2021)
    jitter_size: int = number(1024, 32)  # resize=jitter: side of the square that is cropped or padded to
    flip: float = number(0.5, 0, 1)
    copy_paste: float = number(0.0, 0, 1)  # how often objects of another image are put on (Ghiasi et al. 2021)
    # strengths of brightness, contrast, saturation and hue (at most 0.5), as torchvision's ColorJitter; 0: unchanged
    colour_jitter: list[float] = values(0.0, 0.0, 0.0, 0.0)
    # a batch (over all devices) holds wide images only or others only (Detectron2's ASPECT_RATIO_GROUPING)
    group_by_aspect: bool = False


@dataclass
class RunConfig:
    seed: int = number(0, 0)
    model: ModelConfig = field(default_factory=ModelConfig)
    data: DataConfig = field(default_factory=DataConfig)
    augmentation: AugmentationConfig = field(default_factory=AugmentationConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    precision: PrecisionConfig = field(default_factory=PrecisionConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    runtime: RuntimeConfig = field(default_factory=RuntimeConfig)
    launcher: LauncherConfig = field(default_factory=LauncherConfig)
