"""Large-scale jitter from JPEG files to batches with masks: images a second and core, beside torchvision's transforms.

`python -m mrbench.bench.loading`, or `make bench`. Both sides decode the same files on one thread and draw scale, crop
and flip from the same distributions; by turns, in CPU time, so that a busy machine disturbs both alike. Ours ends with
a padded batch and its masks' summed-area tables; torchvision's with single pictures and dense masks, not collated.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from pycocotools import mask as coco_mask
from torchvision import io, tv_tensors
from torchvision.transforms import v2

from mrbench.bench.statistics import Summary, summarise
from mrbench.config.schema import RunConfig
from mrbench.data.coco import CocoDataset
from mrbench.data.train_batches import TrainBatches

HEIGHT, WIDTH, INSTANCES = 480, 640, 7  # COCO's usual picture, and its mean number of objects
SIDE, SCALES = 1024, (0.1, 2.0)


def make_pictures(folder: Path, count: int) -> CocoDataset:
    """`count` JPEGs in `folder`, of noise with the spectrum of photographs (175 kB each), with 7 polygons each."""
    random = np.random.default_rng(0)
    images: list[dict[str, object]] = []
    annotations: list[dict[str, object]] = []
    for number in range(1, count + 1):
        Image.fromarray(_noise(random)).save(folder / f"{number}.jpg", quality=90)
        images.append({"id": number, "file_name": f"{number}.jpg", "width": WIDTH, "height": HEIGHT})
        for _ in range(INSTANCES):
            points = _polygon(random)
            low, high = points.min(axis=0), points.max(axis=0)
            width, height = (high - low).tolist()
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": number,
                    "category_id": 1,
                    "bbox": [*low.tolist(), width, height],
                    "area": width * height,
                    "iscrowd": 0,
                    "segmentation": [points.ravel().tolist()],
                }
            )
    content = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "thing"}]}
    (folder / "instances.json").write_text(json.dumps(content))
    return CocoDataset(folder / "instances.json", folder)


def ours(dataset: CocoDataset, images: int) -> Callable[[int], object]:
    """What reads batch `k` of `images` pictures."""
    config = RunConfig()
    config.augmentation.resize, config.augmentation.jitter = "jitter", list(SCALES)
    config.augmentation.jitter_size = SIDE
    config.schedule.images_per_batch = images
    return TrainBatches(dataset, config, 0, 1, 0).__getitem__


def torchvisions(dataset: CocoDataset, images: int) -> Callable[[int], object]:
    """As `ours`, with torchvision's transforms on tensors of pictures, masks and boxes."""
    transform = v2.Compose(
        [
            v2.ScaleJitter((SIDE, SIDE), SCALES, antialias=True),
            v2.RandomCrop((SIDE, SIDE), pad_if_needed=True),
            v2.RandomHorizontalFlip(),
            v2.SanitizeBoundingBoxes(),
        ]
    )

    def read(index: int) -> object:
        image, annotations = dataset.images[index], dataset.annotations(index)
        size = (image.height, image.width)
        pixels = io.decode_jpeg(io.read_file(str(image.file)), io.ImageReadMode.RGB)
        rles = [coco_mask.merge(coco_mask.frPyObjects(a.segmentation, *size)) for a in annotations]
        boxes = torch.tensor([a.bbox for a in annotations])
        target = {
            "boxes": tv_tensors.BoundingBoxes(boxes, format="XYXY", canvas_size=size),
            "labels": torch.tensor([a.label for a in annotations]),
            "masks": tv_tensors.Mask(torch.from_numpy(np.stack([coco_mask.decode(rle) for rle in rles]))),
        }
        return transform(tv_tensors.Image(pixels), target)

    return lambda k: [read(i % len(dataset)) for i in range(k * images, (k + 1) * images)]


def compare(
    readers: list[Callable[[int], object]], images: int, rounds: int, batches: int
) -> tuple[list[Summary], Summary]:
    """Images a CPU second of each reader, and the first's over the second's, both over rounds of `batches` batches."""
    torch.manual_seed(0)  # torchvision draws from the global generator
    rates: list[list[float]] = [[] for _ in readers]
    for reader in readers:
        reader(0)
    for turn in range(rounds):
        for reader, rate in zip(readers, rates, strict=True):
            begin = time.process_time()
            for k in range(turn * batches, (turn + 1) * batches):
                reader(k)
            rate.append(batches * images / (time.process_time() - begin))
    return [summarise(rate) for rate in rates], summarise([a / b for a, b in zip(*rates, strict=True)])


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m mrbench.bench.loading", description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=12, help="measurements of each side, by turns")
    parser.add_argument("--pictures", type=int, default=32)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        dataset = make_pictures(Path(folder), arguments.pictures)
        rates, ratio = compare([ours(dataset, 8), torchvisions(dataset, 8)], 8, arguments.rounds, 4)
    for name, rate in zip(("mrbench", "torchvision"), rates, strict=True):
        print(f"{name:<12} {rate.mean:6.1f} ± {rate.std or 0:.1f} images/s a core ({rate.low:.1f} to {rate.high:.1f})")
    print(f"mrbench is {ratio.mean:.2f} ± {ratio.std or 0:.2f} times as fast, over {ratio.count} pairs")


def _noise(random: np.random.Generator) -> np.ndarray:
    """uint8 [HEIGHT, WIDTH, 3] whose amplitudes fall with the frequency, nearly alike in the three colours."""
    frequency = np.hypot(np.fft.fftfreq(HEIGHT)[:, None], np.fft.rfftfreq(WIDTH)[None])
    frequency[0, 0] = 1.0
    common = random.normal(size=(HEIGHT, WIDTH))
    pixels = np.empty((HEIGHT, WIDTH, 3), dtype=np.uint8)
    for channel in range(3):
        white = 0.9 * common + 0.4 * random.normal(size=(HEIGHT, WIDTH))
        coloured = np.fft.irfft2(np.fft.rfft2(white) / frequency**1.1, s=(HEIGHT, WIDTH))
        pixels[..., channel] = np.clip(120 + 55 * (coloured - coloured.mean()) / coloured.std(), 0, 255)
    return pixels


def _polygon(random: np.random.Generator) -> np.ndarray:
    """float64 [n, 2] (x, y): 15 to 40 corners around a centre, 20 to 300 pixels across, inside the picture."""
    corners = int(random.integers(15, 41))
    radius = np.exp(random.uniform(np.log(10), np.log(150)))
    centre = random.uniform((radius, radius), (WIDTH - radius, HEIGHT - radius))
    angle = np.sort(random.uniform(0, 2 * np.pi, corners))
    away = (radius * random.uniform(0.7, 1, corners))[:, None]
    return (centre + away * np.stack([np.cos(angle), np.sin(angle)], axis=1)).round(2)


if __name__ == "__main__":
    main()
