"""Proposals from files: read whole or not at all, moved with the picture, the same for every worker and process."""

import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mrbench.data.augmentation import Plan
from mrbench.data.loader import eval_loader, train_loader
from mrbench.data.proposals import ProposalTable, SplitProposals, make_table, read_proposals, write_proposals
from mrbench.data.sources import open_split
from mrbench.errors import UserError

IDS = [10, 20, 30, 40, 50]
AS_IT_IS = Plan((40, 60), (40, 60), (0, 0), (40, 60), flip=False)


def table(ids: list[int] = IDS, each: int = 6, seed: int = 0) -> ProposalTable:
    random = np.random.default_rng(seed)
    boxes = [np.sort(random.uniform(0, 40, (each, 2, 2)), 1).reshape(-1, 4).astype(np.float32) for _ in ids]
    return make_table(ids, boxes, [np.sort(random.normal(size=each))[::-1] for _ in ids])


def detectron2(content: dict[str, Any], path: Path) -> Path:
    path.write_bytes(pickle.dumps(content))
    return path


def as_detectron2(source: ProposalTable) -> dict[str, Any]:
    """As its COCOEvaluator pickles them."""
    return {
        "ids": source.image_ids.tolist(),
        "boxes": np.split(source.boxes, source.offsets[1:-1]),
        "objectness_logits": np.split(source.objectness, source.offsets[1:-1]),
        "bbox_mode": 0,
    }


def same(a: ProposalTable, b: ProposalTable) -> bool:
    return all(np.array_equal(getattr(a, n), getattr(b, n)) for n in ("image_ids", "offsets", "boxes", "objectness"))


def test_a_file_has_both_splits_and_is_mapped_not_read(tmp_path: Path) -> None:
    path = tmp_path / "proposals.npz"
    tables = {"train": table(), "val": table([7, 8], 3, seed=1)}
    write_proposals(path, tables)
    for split, written in tables.items():
        found = read_proposals(path, split)
        assert same(found, written)
        assert isinstance(found.boxes, np.memmap)
    with np.load(path, allow_pickle=False) as arrays:  # for programs that know nothing of this one
        assert arrays["val/boxes"].dtype == np.float32
        assert arrays["val/image_ids"].tolist() == [7, 8]
        assert arrays["val/offsets"].tolist() == [0, 3, 6]
    write_proposals(path, {"val": make_table([1, 2], [np.zeros((0, 4))] * 2, [np.zeros(0)] * 2)})
    assert len(read_proposals(path, "val").boxes) == 0


def test_a_process_is_handed_the_files_name_not_the_boxes(tmp_path: Path) -> None:
    path = tmp_path / "proposals.npz"
    write_proposals(path, {"val": table(each=5000)})
    proposals = SplitProposals(path, "val", IDS)
    handed = pickle.dumps(proposals)
    assert len(handed) < 1000
    assert np.array_equal(pickle.loads(handed).of(3, AS_IT_IS, 50), proposals.of(3, AS_IT_IS, 50))


def test_detectron2s_pickles_are_read(tmp_path: Path) -> None:
    source = table()
    content = as_detectron2(source)
    assert same(read_proposals(detectron2(content, tmp_path / "new.pkl"), "train"), source)

    older = {"indexes": [str(i) for i in IDS], "boxes": content["boxes"], "scores": content["objectness_logits"]}
    assert same(read_proposals(detectron2(older, tmp_path / "older.pkl"), "val"), source)

    sized = [np.concatenate([b[:, :2], b[:, 2:] - b[:, :2]], 1) for b in content["boxes"]]
    found = read_proposals(detectron2({**content, "boxes": sized, "bbox_mode": 1}, tmp_path / "sized.pkl"), "val")
    np.testing.assert_allclose(found.boxes, source.boxes, rtol=1e-6)


class Malicious:
    def __reduce__(self) -> Any:
        return print, ("it ran",)


def test_files_that_are_no_proposals_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good = tmp_path / "good.npz"
    write_proposals(good, {"train": table()})
    content = as_detectron2(table())
    arrays = {f"val/{name}": getattr(table(), name) for name in ("image_ids", "offsets", "boxes", "objectness")}

    def saved(name: str, **changes: Any) -> Path:
        np.savez(tmp_path / name, **{**arrays, **changes})
        return tmp_path / name

    def written(name: str, data: bytes) -> Path:
        (tmp_path / name).write_bytes(data)
        return tmp_path / name

    np.savez_compressed(tmp_path / "compressed.npz", **arrays)
    short = {**content, "objectness_logits": [s[:-1] for s in content["objectness_logits"]]}
    bad = {
        good: "no proposals of the val split, but of: train",
        tmp_path / "nowhere.npz": "cannot be read",
        tmp_path / "compressed.npz": "compressed",
        written("text.npz", b"hello"): "not a file of proposals",
        written("torn.npz", good.read_bytes()[:-200]): "not a whole file",
        saved("offsets.npz", **{"val/offsets": np.array([0, 6, 12, 18, 24, 31])}): "do not fit together",
        saved("falling.npz", **{"val/offsets": np.array([0, 12, 6, 18, 24, 30])}): "do not fit together",
        saved("boxes.npz", **{"val/boxes": np.zeros((30, 3), np.float32)}): "do not fit together",
        saved("words.npz", **{"val/boxes": np.full((30, 4), "a")}): "is an array of",
        detectron2({"ids": [1]}, tmp_path / "lacking.pkl"): "not a pickle of Detectron2's proposals",
        detectron2([1, 2], tmp_path / "list.pkl"): "not a pickle of Detectron2's proposals",  # type: ignore[arg-type]
        detectron2({**content, "bbox_mode": 4}, tmp_path / "rotated.pkl"): "bbox_mode 4",
        detectron2(short, tmp_path / "short.pkl"): "other numbers of boxes than of scores",
        detectron2({**content, "ids": Malicious()}, tmp_path / "malicious.pkl"): "asks for builtins.print",
    }
    for path, why in bad.items():
        with pytest.raises(UserError, match=why):
            read_proposals(path, "val")
    assert "it ran" not in capsys.readouterr().out


def test_images_without_proposals_are_named(tmp_path: Path) -> None:
    write_proposals(tmp_path / "p.npz", {"val": table([50, 10, 30])})
    with pytest.raises(UserError, match=r"no proposals for 2 of the 5 images of the val split, .* ids 20, 40"):
        SplitProposals(tmp_path / "p.npz", "val", IDS)


def test_proposals_follow_the_picture_and_the_best_with_area_remain(tmp_path: Path) -> None:
    boxes = np.array(
        [
            [10, 10, 20, 30],
            [40, 0, 60, 40],
            [0, 0, 9, 9],  # outside of the crop
            [30, 20, 30, 25],  # no width
            [35, 25, 33, 30],  # turned round
            [12, 16, np.nan, 20],
            [5, 5, 25, 25],
        ]
    )
    scores = np.array([0.5, 2.0, 9.0, 8.0, 7.0, 6.0, -1.0])
    write_proposals(tmp_path / "p.npz", {"val": make_table([3], [boxes], [scores])})
    proposals = SplitProposals(tmp_path / "p.npz", "val", [3])
    # Twice the size, of which 80 x 60 (width x height) pixels from (20, 20) on are kept, then mirrored.
    plan = Plan((40, 60), (80, 120), (20, 20), (60, 80), flip=True)
    expected = [
        [0, 0, 20, 60, 2.0],  # x: 80..120 -> 60..100 -> 60..80 -> 0..20; y: 0..80 -> 0..60
        [60, 0, 80, 40, 0.5],  # x: 20..40 -> 0..20 -> 60..80; y: 20..60 -> 0..40
        [50, 0, 80, 30, -1.0],  # x: 10..50 -> 0..30 -> 50..80; y: 10..50 -> 0..30
        [0, 0, 0, 0, -np.inf],
    ]
    assert proposals.of(0, plan, 4).tolist() == expected
    assert proposals.of(0, plan, 2).tolist() == expected[:2]


def test_batches_have_the_proposals_of_their_images(folder: Any) -> None:
    path = folder.root / "p.npz"
    write_proposals(path, {"train": table(), "val": table(seed=1)})
    config = folder.config(resize="short_edge", short_edge=[80], max_size=200, flip=0.5)
    config.model.rpn.mode = "precomputed"
    config.model.rpn.post_nms_train, config.model.rpn.post_nms_test = 8, 5
    config.data.train.proposals = config.data.val.proposals = str(path)
    dataset = open_split(config.data, "train")
    whole = list(train_loader(dataset, config))
    parts = [list(train_loader(dataset, config, rank, 2)) for rank in range(2)]
    resumed = list(train_loader(dataset, config, start=4))
    config.runtime.num_workers = 2
    by_workers = list(train_loader(dataset, config))
    for t, batch in enumerate(whole):
        assert batch.proposals is not None
        assert batch.proposals.shape == (4, 8, 5)
        assert bool((batch.proposals[:, 6:, 4] == -np.inf).all()), "six in the file"
        split = np.concatenate([parts[rank][t].proposals for rank in range(2)])  # type: ignore[arg-type]
        assert np.array_equal(split, batch.proposals)
        assert np.array_equal(by_workers[t].proposals, batch.proposals)  # type: ignore[arg-type]
        for number, image_id in enumerate(batch.image_ids):
            here = slice(6 * IDS.index(image_id), 6 * IDS.index(image_id) + 6)
            boxes = 2 * table().boxes[here]
            mirrored = np.stack([120 - boxes[:, 2], boxes[:, 1], 120 - boxes[:, 0], boxes[:, 3]], 1)
            found = batch.proposals[number, :6, :4].numpy()
            assert any(np.allclose(found, b, atol=1e-4) for b in (boxes, mirrored))
    assert np.array_equal(resumed[0].proposals, whole[4].proposals)  # type: ignore[arg-type]

    (tested, *_) = eval_loader(open_split(config.data, "val"), config)
    assert tested.proposals is not None
    assert tested.proposals.shape == (5, 5, 5)
    np.testing.assert_allclose(tested.proposals[0, :, :4], 2 * table(seed=1).boxes[:5], rtol=1e-6)
    config.data = replace(config.data, val=replace(config.data.val, proposals=str(folder.root / "none.npz")))
    with pytest.raises(UserError, match=r"none\.npz cannot be read"):
        open_split(config.data, "val")
