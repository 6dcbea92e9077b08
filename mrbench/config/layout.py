"""Where a COCO-format folder keeps a split's annotations and pictures, and whether a run's files are there."""

from collections.abc import Sequence
from pathlib import Path

from mrbench.config.schema import DataConfig, ModelConfig, RunConfig, SplitConfig
from mrbench.errors import UserError


def data_root(data: DataConfig) -> Path:
    """The folder of the data set; raises UserError where it is not given or not there."""
    if not data.root:
        raise UserError(f"data={data.kind} needs the folder of the data set", "Add data.root=FOLDER to the command.")
    root = Path(data.root).expanduser()
    if not root.is_dir():
        raise UserError(f"data.root is not a folder: {root}", "Check data.root=FOLDER.")
    return root


def find_split(data: DataConfig, split: str) -> tuple[Path, Path]:
    """(annotation file, picture folder) of `split` ("train" or "val").

    What `data.<split>` names wins, relative to `data.root`. Otherwise, as COCO has it: the first of
    annotations/instances_<split>*.json, annotations/<split>*.json, <split>*.json; and the first of images/<split>,
    images/<split>*, <split>*, images that is a folder, or the root itself. Raises UserError.
    """
    root = data_root(data)
    given: SplitConfig = getattr(data, split)
    if given.annotations:
        annotations = _given_file(root, given.annotations, f"data.{split}.annotations")
    else:
        patterns = (f"annotations/instances_{split}*.json", f"annotations/{split}*.json", f"{split}*.json")
        found = [p for pattern in patterns for p in sorted(root.glob(pattern)) if p.is_file()]
        if not found:
            raise UserError(
                f"No annotations of the {split} split in {root}: looked for {', '.join(patterns)}",
                f"Name the file: data.{split}.annotations=FILE (relative to data.root).",
            )
        annotations = found[0]
    if given.images:
        return annotations, _given_folder(root, given.images, f"data.{split}.images")
    candidates = [root / "images" / split, *sorted(root.glob(f"images/{split}*"))]
    candidates += [*sorted(root.glob(f"{split}*")), root / "images", root]
    return annotations, next(p for p in candidates if p.is_dir())


def find_more(data: DataConfig) -> list[tuple[Path, Path]]:
    """(annotation file, picture folder) of everything in `data.train_more`. Raises UserError."""
    if not data.train_more:
        return []
    root = data_root(data)
    return [
        (
            _given_file(root, str(more.annotations), f"data.train_more[{place}].annotations"),
            _given_folder(root, str(more.images), f"data.train_more[{place}].images"),
        )
        for place, more in enumerate(data.train_more)
    ]


def check_files(configs: Sequence[RunConfig]) -> None:
    """Raises UserError where a folder or file that one of them reads is missing: asked before a run is made of it."""
    for data in {repr(config.data): config.data for config in configs}.values():
        _check_data(data)
    for model in {repr(config.model): config.model for config in configs}.values():
        _check_weights(model)


def _check_weights(model: ModelConfig) -> None:
    body = model.backbone.weights if model.backbone.weights != "imagenet" else None
    for key, name in (("model.weights", model.weights), ("model.backbone.weights", body)):
        if name is not None and not Path(name).is_file():
            raise UserError(f"{key} is not a file: {name}", f"Give the file's path, or {key}=null for none.")


def _check_data(data: DataConfig) -> None:
    if data.kind == "coco_folder":
        for split in ("train", "val"):
            find_split(data, split)
        find_more(data)


def _given_file(root: Path, name: str, key: str) -> Path:
    if not (root / name).is_file():
        raise UserError(f"{key} is not a file: {root / name}", "It is taken relative to data.root.")
    return root / name


def _given_folder(root: Path, name: str, key: str) -> Path:
    if not (root / name).is_dir():
        raise UserError(f"{key} is not a folder: {root / name}", "It is taken relative to data.root.")
    return root / name
