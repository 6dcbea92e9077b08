"""Detections on a data set become COCO results whatever the batches and processes."""

import re

import numpy as np
import pytest
import torch
from PIL import Image
from torch import multiprocessing

from mrbench.data.batch import Batch
from mrbench.data.coco import Category
from mrbench.data.picture_files import picture_files
from mrbench.errors import UserError
from mrbench.evaluation.coco import evaluate
from mrbench.evaluation.folder import open_pictures
from mrbench.evaluation.inference import detect_dataset, gather_results
from mrbench.modeling.postprocess import Detections


class Oracle(torch.nn.Module):
    """Finds in image n the n boxes that it is told of."""

    def __init__(self):
        super().__init__()
        self.modes = []

    def detect(self, batch):
        self.modes.append((self.training, torch.is_inference_mode_enabled()))
        return [found(image_id) for image_id in batch.image_ids]


def found(image_id):
    generator = torch.Generator().manual_seed(image_id)
    n = image_id % 4
    corner = torch.rand(n, 2, generator=generator) * 50
    boxes = torch.cat([corner, corner + 5 + torch.rand(n, 2, generator=generator) * 30], 1)
    scores = torch.rand(n, generator=generator).sort(descending=True).values
    return Detections(boxes, scores, torch.arange(n) % 2, torch.ones(n, 28, 28))


def batches(ids, size):
    for start in range(0, len(ids), size):
        part = ids[start : start + size]
        n = len(part)
        yield Batch(
            images=torch.zeros(n, 3, 32, 32, dtype=torch.uint8),
            sizes=torch.tensor([[32, 32]] * n),
            original_sizes=torch.tensor([[90, 100]] * n),
            boxes=torch.zeros(n, 1, 4),
            labels=torch.full((n, 1), -1),
            masks=None,
            seeds=torch.zeros(n, dtype=torch.int64),
            image_ids=part,
            iteration=0,
        )


class DataSet:
    categories = (Category(3, "cat"), Category(17, "dog"))


IDS = [12, 5, 7, 3, 1, 2, 9, 10]


def test_results_score_100_against_what_was_to_be_found():
    model, done = Oracle(), []
    model.train()
    results = detect_dataset(model, DataSet(), batches(IDS, 3), progress=done.append)
    assert done == [3, 6, 8]
    assert model.modes == [(False, True)] * 3
    assert model.training
    assert [item["image_id"] for item in results] == sorted(item["image_id"] for item in results)
    assert {item["category_id"] for item in results} == {3, 17}
    annotations = []
    for image_id in IDS:
        for (x1, y1, x2, y2), label in zip(
            found(image_id).boxes.tolist(), found(image_id).labels.tolist(), strict=True
        ):
            annotations.append(
                {"id": len(annotations), "image_id": image_id, "category_id": [3, 17][label],
                 "bbox": [x1, y1, x2 - x1, y2 - y1], "iscrowd": 0,
                 "segmentation": [[x1, y1, x2, y1, x2, y2, x1, y2]]}
            )  # fmt: skip
    truth = {
        "images": [{"id": i, "height": 90, "width": 100} for i in IDS],
        "categories": [{"id": 3, "name": "cat"}, {"id": 17, "name": "dog"}],
        "annotations": annotations,
    }
    metrics = evaluate(truth, results).metrics
    assert metrics["box/AP"] == pytest.approx(100)
    assert metrics["mask/AP50"] == pytest.approx(100)


def test_results_do_not_depend_on_the_batches():
    one = detect_dataset(Oracle(), DataSet(), batches(IDS, 1))
    assert one == detect_dataset(Oracle(), DataSet(), batches(sorted(IDS), 5))
    assert gather_results(one) == one


def _process(rank, folder):
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    joined = gather_results(detect_dataset(Oracle(), DataSet(), batches(IDS[rank::2], 2)))
    torch.distributed.destroy_process_group()
    torch.save(joined, f"{folder}/{rank}.pt")


def test_two_processes_give_what_one_gives(tmp_path, monkeypatch):
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "lo")
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=_process, args=(rank, str(tmp_path))) for rank in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    assert torch.load(tmp_path / "0.pt") == detect_dataset(Oracle(), DataSet(), batches(IDS, 3))
    assert torch.load(tmp_path / "1.pt") is None


def test_pictures_of_folders_and_files(tmp_path):
    (tmp_path / "in").mkdir()
    for name, size in (("in/b.png", (40, 30)), ("in/a.jpg", (20, 10)), ("c.png", (5, 6))):
        Image.fromarray(np.zeros((size[1], size[0], 3), np.uint8)).save(tmp_path / name)
    (tmp_path / "in/notes.txt").write_text("no picture")
    pictures = open_pictures(picture_files([tmp_path / "in", tmp_path / "c.png"]), DataSet.categories)
    assert [(i.id, i.file.name, i.width, i.height) for i in pictures.images] == [
        (1, "a.jpg", 20, 10),
        (2, "b.png", 40, 30),
        (3, "c.png", 5, 6),
    ]
    (tmp_path / "torn.png").write_bytes(b"\x89PN")
    for path, said, advice in (
        ("gone.png", "no file", "Give picture files"),
        ("in/notes.txt", "not a picture", r"Pictures end in \.jpg, .*\.png"),
        ("torn.png", "not a picture", "Fetch it again"),
    ):
        with pytest.raises(UserError, match=said) as caught:
            open_pictures(picture_files([tmp_path / path]), [])
        assert re.search(advice, caught.value.hint)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="no pictures"):
        open_pictures(picture_files([tmp_path / "empty"]), [])
