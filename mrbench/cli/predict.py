"""`mrbench predict`: boxes, masks and labels drawn on pictures."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mrbench.cli.common import ConfigDir, Root, compose, root_folder, run_config
from mrbench.errors import UserError

if TYPE_CHECKING:
    from mrbench.config.schema import RunConfig
    from mrbench.data.picture_files import PictureFile
    from mrbench.evaluation.folder import PictureSet
    from mrbench.runs.record import Run


def predict_command(
    arguments: Annotated[
        list[str],
        typer.Argument(
            metavar="[RUN] [OVERRIDES] IMAGES|FOLDER...",
            help="A run (its name, a beginning of it, or its folder), then picture files or folders of them, and "
            "among them key=value of what to change of its configuration. With --weights no run.",
        ),
    ],
    weights: Annotated[
        Path | None, typer.Option("--weights", help="A checkpoint, run with the configuration of the overrides.")
    ] = None,
    out: Annotated[Path, typer.Option("--out", help="Folder for the drawn pictures and detections.json.")] = Path(
        "predictions"
    ),
    threshold: Annotated[
        float,
        typer.Option(
            "--threshold",
            min=0.0,
            max=1.0,
            help="Draw detections with this score or more; a higher model.inference.score_threshold is lowered to it.",
        ),
    ] = 0.5,
    root: Root = None,
    config_dir: ConfigDir = None,
) -> None:
    """Draws what a model finds on pictures, and writes it as COCO results.

    Each picture becomes a PNG in --out; detections.json holds all detections, whatever their score, as COCO results,
    with the images and categories that they refer to.

    Example: mrbench predict mask_rcnn_small-74bdd1 photos/ --out drawn

    Example: mrbench predict mask_rcnn_small-74bdd1 evaluation.tta.enabled=true photos/

    Example: mrbench predict --weights final.pt data=coco_folder data.root=/data/coco street.jpg
    """
    from mrbench.data.picture_files import picture_files
    from mrbench.report.words import plural

    overrides = [item for item in arguments if "=" in item and not Path(item).exists()]
    rest = [item for item in arguments if item not in overrides]
    if weights is not None:
        config, run, paths = compose(overrides, config_dir), None, [Path(item) for item in rest]
        if not weights.is_file():
            raise UserError(f"There is no file {weights}.")
    else:
        from mrbench.runs.record import find_run

        if not rest:
            raise UserError("There is no run among the arguments.", "`mrbench runs list` shows the runs.")
        run = find_run(root_folder(root), rest[0])
        config, paths = run_config(run, overrides), [Path(item) for item in rest[1:]]
    if config.model.rpn.mode != "joint":
        raise UserError(
            f"model.rpn.mode={config.model.rpn.mode}: it takes an RPN and heads to detect anything on new pictures",
            "Give a run of model.rpn.mode=joint.",
        )
    if not paths:
        raise UserError("There are no pictures to look at.", "Give picture files, or a folder of them.")
    files = picture_files(paths)  # before torch is loaded and the data set opened, which may be long work
    inference = config.model.inference
    inference.score_threshold = min(inference.score_threshold, threshold)  # what is dropped there cannot be drawn
    pictures, results = _detect(config, run, weights, files)
    _write(pictures, results, out, threshold)
    shown = sum(item["score"] >= threshold for item in results)
    found = f"{plural(len(pictures), 'picture')} with {plural(shown, 'detection')}"
    typer.echo(f"{found} of score {threshold:g} or more in {out}")


def _detect(
    config: "RunConfig", run: "Run | None", weights: Path | None, files: "list[PictureFile]"
) -> "tuple[PictureSet, list[dict[str, Any]]]":
    from typing import cast

    from rich.console import Console
    from rich.progress import Progress

    from mrbench.data.coco import CocoDataset
    from mrbench.data.sources import open_split
    from mrbench.engine.distributed import World
    from mrbench.engine.evaluate import run_weights, testing_process, trained_network
    from mrbench.engine.precision import autocast
    from mrbench.evaluation.folder import open_pictures
    from mrbench.evaluation.inference import detect_as_configured
    from mrbench.modeling.detector import MaskRCNN

    if weights is None:
        assert run is not None
        weights = run_weights(run)
    pictures = open_pictures(files, open_split(config.data, "val").categories)
    config.runtime.num_workers = min(config.runtime.num_workers, len(pictures) // 8)
    console = Console(stderr=True)
    with (
        testing_process(World(), None, config) as device,
        Progress(console=console, transient=True, disable=not console.is_terminal) as progress,
    ):
        model = cast(MaskRCNN, trained_network(config, weights, len(pictures.categories), World()))
        task = progress.add_task("detecting", total=len(pictures))
        results = detect_as_configured(
            model.to(device),
            cast(CocoDataset, pictures),
            config,
            device,
            lambda: autocast(config.precision.kind, device),
            lambda done: progress.update(task, completed=done),
        )
    return pictures, results


def _write(pictures: "PictureSet", results: list[dict[str, Any]], out: Path, threshold: float) -> None:
    from PIL import Image

    from mrbench.data.pictures import read_picture
    from mrbench.evaluation.drawing import draw_coco
    from mrbench.runs.files import replacing, write_json

    categories = [(category.id, category.name) for category in pictures.categories]
    by_image: dict[int, list[dict[str, Any]]] = {}
    for item in results:
        by_image.setdefault(item["image_id"], []).append(item)
    stems = [image.file.stem for image in pictures.images]
    for image, stem in zip(pictures.images, stems, strict=True):
        found = [item for item in by_image.get(image.id, []) if item["score"] >= threshold]
        # Pictures of the same name from several folders get their number.
        name = stem if stems.count(stem) == 1 else f"{stem}-{image.id}"
        with replacing(out / f"{name}.png") as temporary:
            draw_coco(Image.fromarray(read_picture(image)), found, categories).save(temporary, format="PNG")
    write_json(
        out / "detections.json",
        {
            "images": [
                {"id": i.id, "file_name": str(i.file), "width": i.width, "height": i.height} for i in pictures.images
            ],
            "categories": [{"id": key, "name": name} for key, name in categories],
            "detections": results,
        },
    )
