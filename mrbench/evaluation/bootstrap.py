"""A run's scores under the bootstrap's draws of images, kept beside the run: they are dear to compute, small to keep.

An evaluation leaves them as `bootstrap.npz`, and a report computes what is missing. The file says what it was computed
from (checksums of the matches and of the draws), and is passed over where that is not what is at hand. It is never
needed: a folder that cannot be written to, or a damaged file, costs time and no more.
"""

import hashlib
import json
import zipfile
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from mrbench.errors import UserError
from mrbench.evaluation.matches import Matches, breakdown, breakdown_names, resampler, summary
from mrbench.runs.files import replacing

VERSION = 2  # of the file, and of how scores are computed from matches
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


def keep(matches: Matches, matches_file: Path) -> None:
    """Puts `bootstrap.npz` beside the file of these matches: all kinds, as a report asks for them."""
    drawn = {kind: compute(matches, kind) for kind in matches.kinds}
    if drawn:
        _write(matches_file.with_name(FILE), matches_sum(matches_file), drawn, RESAMPLES, SEED)


def of_run(matches_file: Path, kinds: Sequence[str], resamples: int = RESAMPLES, seed: int = SEED) -> dict[str, Drawn]:
    """These kinds from `bootstrap.npz` beside the matches where it is of these matches and draws; what it lacks is
    computed, and put there. A kind that the matches do not have is left out.

    Raises UserError where the matches cannot be read.
    """
    source, place = matches_sum(matches_file), matches_file.with_name(FILE)
    kept = _read(place, source, resamples, seed)
    lacking = [kind for kind in kinds if kind not in kept]
    if lacking:
        matches = Matches.load(matches_file)
        new = {kind: compute(matches, kind, resamples, seed) for kind in lacking if kind in matches.kinds}
        kept |= new
        if new:
            _write(place, source, kept, resamples, seed)
    return {kind: kept[kind] for kind in kinds if kind in kept}


def compute(matches: Matches, kind: str, resamples: int = RESAMPLES, seed: int = SEED) -> Drawn:
    """All draws of one kind. Raises UserError where the matches have no such kind."""
    table, images = resampler(matches, kind), len(matches.image_ids)
    drawn = np.stack([breakdown(matches, table(draw)) for draw in weights(images, resamples, seed)], axis=1)
    whole = summary(matches, table(np.ones(images, np.int64)))["AP"]
    scores = dict(zip(breakdown_names(matches), drawn.astype(np.float32), strict=True))
    return Drawn(_sum(matches.image_ids), images, np.nan if whole is None else whole, scores)


def _read(place: Path, source: str, resamples: int, seed: int) -> dict[str, Drawn]:
    """What is kept there; nothing where it is of other matches, other draws, or damaged."""
    try:
        with np.load(place, allow_pickle=False) as content:
            about = json.loads(content["about"].tobytes())
            count = int(about["count"])
            if about["of"] != _of(source, count, resamples, seed):
                return {}
            scores = content["scores"]
            names = [name for kind in about["kinds"].values() for name in kind["names"]]
            if scores.shape != (len(names), resamples) or scores.dtype != np.float32:
                return {}
            found, rows = {}, iter(scores)
            for kind, kept in about["kinds"].items():
                own = {str(name): next(rows) for name in kept["names"]}
                found[kind] = Drawn(str(about["images"]), count, float(kept["whole"]), own)
            return found
    except (OSError, KeyError, ValueError, TypeError, AttributeError, EOFError, zipfile.BadZipFile):
        return {}


def _write(place: Path, source: str, drawn: dict[str, Drawn], resamples: int, seed: int) -> None:
    """Two arrays, for each takes time to open: what they are as JSON, and the scores of all kinds in one."""
    one = next(iter(drawn.values()))
    about = {
        "of": _of(source, one.count, resamples, seed),
        "count": one.count,
        "images": one.images,
        "kinds": {kind: {"names": list(found.scores), "whole": found.whole} for kind, found in drawn.items()},
    }
    described = np.frombuffer(json.dumps(about).encode(), np.uint8)
    scores = np.stack([row for found in drawn.values() for row in found.scores.values()])
    with suppress(UserError), replacing(place) as temporary, open(temporary, "wb") as file:
        np.savez(file, about=described, scores=scores)


def _of(source: str, images: int, resamples: int, seed: int) -> str:
    return f"{VERSION} {source} {_weights_sum(images, resamples, seed)}"
