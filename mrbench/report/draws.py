"""A run's scores under the bootstrap's draws of images, kept beside the run: they are dear to compute, small to keep.

`bootstrap.npz` says what it was computed from (checksums of the matches and of the draws), and is passed over where
that is not what is at hand. It is never needed: a folder that cannot be written to, or a damaged file, costs time and
no more.
"""

import hashlib
import zipfile
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from mrbench.errors import UserError
from mrbench.evaluation.matches import Matches, breakdown, breakdown_names, resampler, summary
from mrbench.runs.files import replacing

VERSION = 1  # of the file, and of how scores are computed from matches
FILE = "bootstrap.npz"
RESAMPLES = 400  # the standard error of a variance from R draws is about sqrt(2 / R) of it: 7 %
SEED = 20170320


@dataclass(frozen=True)
class Drawn:
    """One run and kind (box, mask): AP numbers in percent on `count` images, whose ids in order have the checksum
    `images`. `whole` is AP with every image once; `scores` float32 [resamples] by `breakdown_names`, NaN where a draw
    has no ground truth."""

    images: str
    count: int
    whole: float
    scores: dict[str, np.ndarray]


@lru_cache(maxsize=4)
def weights(images: int, resamples: int = RESAMPLES, seed: int = SEED) -> np.ndarray:
    """How often each image is drawn: int64 [resamples, images], each row sums to `images`. Not to be written to."""
    drawn = np.random.default_rng(seed).multinomial(images, np.full(images, 1 / images), size=resamples)
    drawn.setflags(write=False)
    return drawn


@lru_cache(maxsize=4)
def _weights_sum(images: int, resamples: int, seed: int) -> str:
    """Tells draws apart even where another NumPy makes others of the same seed."""
    return _sum(weights(images, resamples, seed))


def _sum(values: np.ndarray) -> str:
    return hashlib.sha256(np.ascontiguousarray(values).tobytes()).hexdigest()


def matches_sum(file: Path) -> str:
    """SHA-256 over names, sizes and CRC-32 of the arrays of an npz file, which it lists itself: so that a large one
    need not be read. Raises UserError where there is no such file, or it is damaged."""
    try:
        with zipfile.ZipFile(file) as content:
            listed = sorted((member.filename, member.file_size, member.CRC) for member in content.infolist())
    except OSError as error:
        raise UserError(f"Cannot read the matches {file}: {error.strerror or error}.") from None
    except zipfile.BadZipFile as error:
        raise UserError(
            f"{file} is not a file of matches ({error}).", "Make it again with `mrbench eval RUN`."
        ) from None
    return hashlib.sha256(repr(listed).encode()).hexdigest()


def of_run(matches_file: Path, kind: str, resamples: int = RESAMPLES, seed: int = SEED) -> Drawn | None:
    """From `bootstrap.npz` beside the matches where it is of these matches and draws; else computed, and put there.

    None where the matches are of other kinds only. Raises UserError where they cannot be read.
    """
    source, place = matches_sum(matches_file), matches_file.with_name(FILE)
    kept = _read(place, source, (kind,), resamples, seed)
    if kind in kept:
        return kept[kind]
    matches = Matches.load(matches_file)
    if kind not in matches.kinds:
        return None
    found = compute(matches, kind, resamples, seed)
    others = _read(place, source, tuple(matches.kinds), resamples, seed)
    _write(place, source, {**others, kind: found}, resamples, seed)
    return found


def compute(matches: Matches, kind: str, resamples: int = RESAMPLES, seed: int = SEED) -> Drawn:
    """All draws of one kind. Raises UserError where the matches have no such kind."""
    table, images = resampler(matches, kind), len(matches.image_ids)
    drawn = np.stack([breakdown(matches, table(draw)) for draw in weights(images, resamples, seed)], axis=1)
    whole = summary(matches, table(np.ones(images, np.int64)))["AP"]
    scores = dict(zip(breakdown_names(matches), drawn.astype(np.float32), strict=True))
    return Drawn(_sum(matches.image_ids), images, np.nan if whole is None else whole, scores)


def _read(place: Path, source: str, kinds: tuple[str, ...], resamples: int, seed: int) -> dict[str, Drawn]:
    """What is kept there of these kinds; nothing where it is of other matches, other draws, or damaged."""
    try:
        with np.load(place, allow_pickle=False) as content:
            count = int(content["count"])
            if str(content["of"]) != _of(source, count, resamples, seed):
                return {}
            found = {}
            for kind in kinds:
                if f"{kind}/names" in content:
                    names, scores = content[f"{kind}/names"], content[f"{kind}/scores"]
                    if scores.shape != (len(names), resamples) or scores.dtype != np.float32:
                        return {}
                    whole, images = float(content[f"{kind}/whole"]), str(content["images"])
                    found[kind] = Drawn(images, count, whole, dict(zip(map(str, names), scores, strict=True)))
            return found
    except (OSError, KeyError, ValueError, TypeError, EOFError, zipfile.BadZipFile):
        return {}


def _write(place: Path, source: str, drawn: dict[str, Drawn], resamples: int, seed: int) -> None:
    one = next(iter(drawn.values()))
    content = {
        "of": np.array(_of(source, one.count, resamples, seed)),
        "count": np.array(one.count),
        "images": np.array(one.images),
    }
    for kind, found in drawn.items():
        content[f"{kind}/names"] = np.array(list(found.scores), dtype=str)
        content[f"{kind}/scores"] = np.stack(list(found.scores.values()))
        content[f"{kind}/whole"] = np.array(found.whole)
    with suppress(UserError), replacing(place) as temporary, open(temporary, "wb") as file:
        np.savez(file, **content)  # type: ignore[arg-type]


def _of(source: str, images: int, resamples: int, seed: int) -> str:
    return f"{VERSION} {source} {_weights_sum(images, resamples, seed)}"
