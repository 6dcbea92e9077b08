"""Where a COCO-format folder keeps a split's annotations and pictures."""

from pathlib import Path

from mrbench.config.schema import DataConfig, SplitConfig
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
        annotations = root / given.annotations
        if not annotations.is_file():
            raise UserError(
                f"data.{split}.annotations is not a file: {annotations}", "It is taken relative to data.root."
            )
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
        images = root / given.images
        if not images.is_dir():
            raise UserError(f"data.{split}.images is not a folder: {images}", "It is taken relative to data.root.")
        return annotations, images
    candidates = [root / "images" / split, *sorted(root.glob(f"images/{split}*"))]
    candidates += [*sorted(root.glob(f"{split}*")), root / "images", root]
    return annotations, next(p for p in candidates if p.is_dir())
