"""`mrbench data distill`: annotations of pictures that have none, predicted by a model."""

from pathlib import Path
from typing import Annotated

import typer

from mrbench.cli.common import ConfigDir, Root, compose, root_folder, run_config, run_ending
from mrbench.errors import UserError


def distill_command(
    target: Annotated[
        list[str],
        typer.Argument(
            metavar="RUN|WEIGHTS [OVERRIDES]",
            help="A run (its name, a beginning of it, or its folder) and what to change of its configuration; or a "
            "file of weights and the configuration that it goes with.",
        ),
    ],
    images: Annotated[Path, typer.Option("--images", help="Folder with the pictures.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="The COCO file to write.")],
    score: Annotated[
        float | None,
        typer.Option(
            "--score",
            min=0.0,
            max=1.0,
            help="Keep detections of this score or more; without it, as many an image as the training images have.",
        ),
    ] = None,
    root: Root = None,
    config_dir: ConfigDir = None,
) -> None:
    """Writes what a model finds in pictures without annotations as annotations to train on (data distillation).

    Boxes, masks and keypoints, as far as the model has them, of its most confident detections: as many an image as
    the images it was trained on have on average, or those of --score. evaluation.tta.enabled=true looks at every
    picture in several views (docs/evaluation.md).

    Example: mrbench data distill RUN evaluation.tta.enabled=true --images unlabeled2017 -o distilled.json

    Then: mrbench train ... 'data.train_more=[{annotations: distilled.json, images: unlabeled2017}]'
    """
    name, overrides = target[0], target[1:]
    if "=" in name or not all("=" in override for override in overrides):
        raise UserError(f"Give one run or file of weights, then overrides, not {' '.join(target)}.")
    if out.is_dir():
        raise UserError(f"{out} is a folder.", "Give the file to write: --out FILE.")
    if not images.is_dir():
        raise UserError(f"{images} is not a folder.", "Give the folder with the pictures: --images FOLDER.")
    from mrbench.engine.distill import distill
    from mrbench.engine.evaluate import run_weights
    from mrbench.runs.record import find_run

    if Path(name).is_file():
        config, weights = compose(overrides, config_dir), Path(name)
    else:
        run = find_run(root_folder(root), name)
        config, weights = run_config(run, overrides), run_weights(run)
    if config.model.rpn.mode != "joint":
        raise UserError(
            f"model.rpn.mode={config.model.rpn.mode}: it takes an RPN and heads to detect anything on new pictures",
            "Give a run of model.rpn.mode=joint.",
        )
    with run_ending():
        distill(config, weights, images, out, score)
