"""A network's proposals on a data set, and how much of the ground truth they recall."""

from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
import torch
from pycocotools import mask as rle_api

from mrbench.data.batch import Batch
from mrbench.data.proposals import ProposalTable, make_table
from mrbench.evaluation.coco import COCO_AREAS, Evaluation
from mrbench.evaluation.gather import gather
from mrbench.evaluation.results import read_ground_truth
from mrbench.modeling.proposal_network import ProposalNetwork

Array = np.ndarray[Any, Any]
OfImage = tuple[int, Array, Array]  # image id, boxes float32 [N, 4] in the file's pixels, objectness float32 [N]

LIMITS = (100, 1000)  # proposals of an image
THRESHOLDS = np.linspace(0.5, 0.95, 10)


def propose_dataset(
    network: ProposalNetwork,
    loader: Iterable[Batch],
    device: torch.device | str = "cpu",
    autocast_context: Callable[[], AbstractContextManager[Any]] = nullcontext,
    progress: Callable[[int], None] | None = None,
) -> list[OfImage]:
    """The proposals of the images that `loader` gives, by falling objectness.

    `autocast_context` makes the context in which the network runs; `progress` is called with the number of images
    done. The network is left in the mode (train or eval) it came in. Call `gather_proposals` on what each process
    returns.
    """
    training = network.training
    network.eval()
    found: list[OfImage] = []
    try:
        for batch in loader:
            with torch.inference_mode(), autocast_context():
                proposed = network.propose(batch.to(torch.device(device), non_blocking=True))
            for image_id, one in zip(batch.image_ids, proposed, strict=True):
                found.append((image_id, one.boxes.float().cpu().numpy(), one.scores.float().cpu().numpy()))
            if progress is not None:
                progress(len(found))
    finally:
        network.train(training)
    return found


def gather_proposals(found: list[OfImage]) -> ProposalTable | None:
    """Those of all processes, in order of image id, on process 0; None on the others."""
    of_all = gather(found)
    if of_all is None:
        return None
    of_all = sorted(of_all, key=lambda item: item[0])
    ids, boxes, scores = zip(*of_all, strict=True) if of_all else ((), (), ())
    return make_table(ids, boxes, scores)


def evaluate_proposals(
    ground_truth: dict[str, Any], table: ProposalTable, areas: Sequence[float] = COCO_AREAS
) -> Evaluation:
    """Average recall of boxes, whatever their class, over overlaps of 0.5 to 0.95, in percent: proposal/AR100 and
    proposal/AR1000 are those of the best 100 and 1000 proposals an image, ARs, ARm and ARl those of small, medium and
    large ground truths (Hosang et al. 2015). None where there is no ground truth.

    Ground truths and proposals are joined in order of their overlap, as in Detectron2 (evaluation/coco_evaluation.py,
    `_evaluate_box_proposals`) and Detectron; COCO's own evaluation goes by the proposals' scores, takes an hour for
    1000 proposals an image and differs a little where proposals compete. Crowds do not count. Raises UserError where
    annotations are broken.
    """
    truth = read_ground_truth(ground_truth, ("box",))
    instances: dict[int, list[dict[str, Any]]] = {image["id"]: [] for image in truth["images"]}
    for annotation in truth["annotations"]:
        if not annotation["iscrowd"]:
            instances[annotation["image_id"]].append(annotation)
    rows = {int(image_id): row for row, image_id in enumerate(table.image_ids)}
    small, large = map(float, areas)
    ranges = {"": (0.0, 1e10), "s": (0.0, small), "m": (small, large), "l": (large, 1e10)}
    best: dict[str, list[Array]] = {f"AR{size}{limit}": [] for limit in LIMITS for size in ranges}
    for image_id, of_image in instances.items():
        if not of_image:
            continue
        overlaps = _overlaps(table, rows.get(image_id), of_image)
        area = np.array([annotation["area"] for annotation in of_image])
        for size, (low, high) in ranges.items():
            counted = overlaps[:, (area >= low) & (area <= high)]
            for limit in LIMITS:
                best[f"AR{size}{limit}"].append(joined(counted[:limit]))
    metrics = {f"proposal/{name}": _recall(parts) for name, parts in best.items()}
    return Evaluation(metrics, {}, _notes(metrics, table, (small, large)), None, len(instances))


def _overlaps(table: ProposalTable, row: int | None, instances: list[dict[str, Any]]) -> Array:
    """IoU float64 [proposals, instances], best proposals first; no proposals where the image has no row."""
    if row is None:
        return np.zeros((0, len(instances)))
    here = slice(int(table.offsets[row]), int(table.offsets[row + 1]))
    order = np.argsort(-table.objectness[here], kind="stable")
    boxes = table.boxes[here][order].astype(np.float64)
    if not len(boxes):
        return np.zeros((0, len(instances)))
    boxes[:, 2:] -= boxes[:, :2]
    truths = np.array([annotation["bbox"] for annotation in instances], np.float64)
    overlaps: Array = rle_api.iou(boxes, truths, np.zeros(len(truths), np.uint8))
    return overlaps


def joined(overlaps: Array) -> Array:
    """For overlaps [P, G] of proposals with ground truths: [G], that of the proposal that each ground truth gets, 0
    without one. The pair that overlaps most is joined and leaves, then the next."""
    overlaps = overlaps.copy()
    found = np.zeros(overlaps.shape[1])
    for _ in range(min(overlaps.shape)):
        proposal, truth = np.unravel_index(overlaps.argmax(), overlaps.shape)
        found[truth] = overlaps[proposal, truth]
        overlaps[proposal], overlaps[:, truth] = -1, -1
    return found


def _recall(parts: list[Array]) -> float | None:
    best = np.concatenate([np.zeros(0), *parts])
    # A hair below, as COCOeval does, for overlaps that are the threshold itself.
    return 100.0 * float((best[:, None] >= THRESHOLDS - 1e-10).mean()) if len(best) else None


def _notes(metrics: dict[str, float | None], table: ProposalTable, areas: tuple[float, float]) -> list[str]:
    notes = ["Proposals are counted whatever the class: there is no AP."]
    if not len(table.boxes):
        notes.append("There are no proposals: every AR is 0.")
    elif np.diff(table.offsets).max() <= LIMITS[0]:
        notes.append(f"No image has more than {LIMITS[0]} proposals: AR{LIMITS[1]} is AR{LIMITS[0]}.")
    if areas != COCO_AREAS:
        notes.append(f"Small is below {areas[0]:g} and large above {areas[1]:g} square pixels, unlike COCO's.")
    undefined = [name for name, value in metrics.items() if value is None]
    if undefined:
        notes.append(f"No ground truth for {', '.join(undefined)}.")
    return notes
