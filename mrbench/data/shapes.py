"""The embedded data set: drawn scenes of simple shapes that a small network learns in minutes.

Each picture has a textured background with clutter and noise, and shapes of several classes, sizes and rotations
that hide parts of one another. Every picture is a function of the settings, its split and its number alone, so it
can be drawn on its own. `ShapesConfig.cue` is the difficulty: the share of shapes whose colour tells the class.
"""

from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

from mrbench.config.schema import ShapesConfig

VERSION = 1  # to be raised with every change that changes a picture or an annotation
SPLITS = ("train", "val")
CLASSES = ("circle", "square", "triangle", "star", "ring", "cross")

SUPERSAMPLING = 4  # outlines are drawn this much larger, for soft edges
LEAST_VISIBLE = 0.35  # share of a shape that later ones must leave in sight
LEAST_AREA = 20  # pixels of a shape when it is drawn
LEAST_REMAINING = 16  # pixels of it in the end
ATTEMPTS = 40  # at placing shapes, a picture

BACKGROUND, CROWD, FIRST_INSTANCE = 0, 1, 2  # values in Scene.owner

CLASS_COLOURS = np.array(
    [(220, 60, 60), (60, 200, 60), (70, 90, 230), (230, 210, 50), (210, 70, 210), (60, 210, 210)],
    dtype=np.float32,
)


@dataclass
class Scene:
    """A picture while it is painted, and which shape each of its pixels belongs to."""

    pixels: np.ndarray  # float32 [S, S, 3], 0..255
    owner: np.ndarray  # int16 [S, S]: BACKGROUND, CROWD, or FIRST_INSTANCE + i
    labels: list[int]  # of the instances
    areas: list[int]  # of the instances when they were drawn, pixels
    crowd_label: int | None = None

    def mask(self, owner: int) -> np.ndarray:
        """bool [S, S]: the part of a shape that is in sight."""
        return self.owner == owner


@dataclass
class Stamp:
    """A shape at its place: how much of each pixel of a window it covers."""

    coverage: np.ndarray  # float32 [h, w], 0..1
    window: tuple[slice, slice]  # rows and columns in the picture

    @property
    def inside(self) -> np.ndarray:
        return self.coverage >= 0.5


def draw_scene(settings: ShapesConfig, split: str, number: int) -> Scene:
    """Picture `number` (from 0) of a split."""
    random = np.random.Generator(np.random.PCG64(np.random.SeedSequence([settings.seed, SPLITS.index(split), number])))
    size = settings.image_size
    scene = Scene(_background(random, size, settings.clutter), np.zeros((size, size), np.int16), [], [])
    if random.random() < settings.crowd:
        _paint_crowd(random, scene, settings)
    wanted = int(random.integers(settings.instances[0], settings.instances[1] + 1))
    for _ in range(ATTEMPTS):
        if len(scene.labels) == wanted:
            break
        _try_shape(random, scene, settings)
    scene.pixels += random.standard_normal((size, size, 1), dtype=np.float32) * settings.noise
    np.clip(scene.pixels, 0, 255, out=scene.pixels)
    return scene


def _background(random: np.random.Generator, size: int, clutter: int) -> np.ndarray:
    """A soft field of colours with stripes, strokes and arcs; the arcs look like pieces of circles and rings."""
    cells = int(random.integers(3, 9))
    field = random.integers(40, 216, 3) + random.normal(0, 32, (cells, cells, 3))
    coarse = Image.fromarray(np.clip(field, 0, 255).astype(np.uint8))
    canvas = coarse.resize((size, size), Image.Resampling.BICUBIC)
    pen = ImageDraw.Draw(canvas)
    for _ in range(int(random.integers(clutter // 2, clutter + 1))):
        colour = tuple(random.integers(0, 256, 3).tolist())
        (x, y), length, angle = random.uniform(0, size, 2), random.uniform(6, 50), random.uniform(0, 360)
        thickness = int(random.integers(1, 4))
        if random.random() < 0.6:
            dx, dy = length * np.cos(np.radians(angle)), length * np.sin(np.radians(angle))
            pen.line([x, y, x + dx, y + dy], fill=colour, width=thickness)
        else:
            half = length / 2
            turn = random.uniform(60, 200)
            pen.arc([x - half, y - half, x + half, y + half], angle, angle + turn, colour, thickness)
    pixels = np.asarray(canvas).astype(np.float32)
    strength, frequency, angle = random.uniform(0, 14), random.uniform(0.1, 0.9), random.uniform(0, np.pi)
    along = np.arange(size, dtype=np.float32)
    phase = frequency * (np.cos(angle) * along + np.sin(angle) * along[:, None]) + random.uniform(0, 6)
    pixels += (strength * np.sin(phase)).astype(np.float32)[..., None]
    return pixels


def _try_shape(random: np.random.Generator, scene: Scene, settings: ShapesConfig) -> None:
    """Paints one more shape, unless it would hide too much of another or hardly be seen itself."""
    size = settings.image_size
    label = int(random.integers(settings.classes))
    low, high = np.log(settings.diameters)
    radius = 0.5 * float(np.exp(random.uniform(low, high)))
    margin = min(0.6 * radius, 0.3 * size)
    stamp = _stamp(random, label, radius, random.uniform(margin, size - margin, 2), size)
    colour, shading = _colour(random, label, settings.cue), random.normal(0, 12, (2, 3)).astype(np.float32)
    if stamp is None:
        return
    inside = stamp.inside
    area = int(inside.sum())
    if area < LEAST_AREA:
        return
    beneath = scene.pixels[stamp.window][inside].mean(axis=0)
    if np.abs(colour - beneath).max() < settings.contrast:
        return
    if not _leaves_enough(scene, stamp.window, inside):
        return
    _paint(scene, stamp, colour, shading, FIRST_INSTANCE + len(scene.labels))
    scene.labels.append(label)
    scene.areas.append(area)


def _leaves_enough(scene: Scene, window: tuple[slice, slice], inside: np.ndarray) -> bool:
    """Whether every instance that would lose pixels to a new shape stays visible."""
    for owner, lost in enumerate(np.bincount(scene.owner[window][inside])):
        if owner >= FIRST_INSTANCE and lost:
            remaining = np.count_nonzero(scene.owner == owner) - lost
            if remaining < max(LEAST_VISIBLE * scene.areas[owner - FIRST_INSTANCE], LEAST_REMAINING):
                return False
    return True


def _paint_crowd(random: np.random.Generator, scene: Scene, settings: ShapesConfig) -> None:
    """A swarm of shapes of one class, too small and close together to be told apart."""
    size = settings.image_size
    scene.crowd_label = label = int(random.integers(settings.classes))
    centre = random.uniform(0.2 * size, 0.8 * size, 2)
    spread = random.uniform(0.06, 0.12, 2) * size
    for _ in range(int(random.integers(10, 21))):
        radius = 0.5 * settings.diameters[0] * float(random.uniform(0.6, 1.0))
        stamp = _stamp(random, label, radius, centre + spread * random.standard_normal(2), size)
        colour = _colour(random, label, settings.cue)
        if stamp is not None:
            _paint(scene, stamp, colour, np.zeros((2, 3), np.float32), CROWD)


def _colour(random: np.random.Generator, label: int, cue: float) -> np.ndarray:
    any_colour = random.uniform(0, 255, 3)
    own_colour = CLASS_COLOURS[label] + random.normal(0, 30, 3)
    return np.clip(own_colour if random.random() < cue else any_colour, 0, 255).astype(np.float32)


def _paint(scene: Scene, stamp: Stamp, colour: np.ndarray, shading: np.ndarray, owner: int) -> None:
    height, width = stamp.coverage.shape
    across = np.linspace(-1, 1, width, dtype=np.float32)[None, :, None]
    down = np.linspace(-1, 1, height, dtype=np.float32)[:, None, None]
    paint = colour + across * shading[0] + down * shading[1]
    beneath = scene.pixels[stamp.window]
    beneath += (paint - beneath) * stamp.coverage[..., None]
    scene.owner[stamp.window][stamp.inside] = owner


def _stamp(random: np.random.Generator, label: int, radius: float, centre: np.ndarray, size: int) -> Stamp | None:
    """A shape with random rotation and stretch; None where the picture holds too little of it."""
    stretch = float(np.exp(random.uniform(-0.15, 0.15)))
    angle = random.uniform(0, 2 * np.pi)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    transform = turn * (radius * np.array([stretch, 1 / stretch]))
    outer, *holes = (outline @ transform.T + centre for outline in OUTLINES[label])
    left, top = np.maximum(np.floor(outer.min(axis=0)), 0).astype(int).tolist()
    right, bottom = np.minimum(np.ceil(outer.max(axis=0)), size).astype(int).tolist()
    width, height = right - left, bottom - top
    if width < 2 or height < 2:
        return None
    canvas = Image.new("L", (width * SUPERSAMPLING, height * SUPERSAMPLING))
    pen = ImageDraw.Draw(canvas)
    for points, fill in [(outer, 255), *((hole, 0) for hole in holes)]:
        pen.polygon(((points - (left, top)) * SUPERSAMPLING).ravel().tolist(), fill=fill)
    coverage = np.asarray(canvas.reduce(SUPERSAMPLING)).astype(np.float32) / 255
    return Stamp(coverage, (slice(top, bottom), slice(left, right)))


def _circle(radius: float, corners: int, start: float = 0.0) -> np.ndarray:
    """Corners [n, 2] of a regular polygon in a circle."""
    angles = start + np.arange(corners) * (2 * np.pi / corners)
    return radius * np.stack([np.cos(angles), np.sin(angles)], axis=1)


def _star() -> np.ndarray:
    return np.stack([_circle(1.2, 5), _circle(0.5, 5, np.pi / 5)], axis=1).reshape(10, 2)


def _cross() -> np.ndarray:
    arm, half = 1.1, 0.36
    quarter = np.array([(half, half), (half, arm), (-half, arm)])
    turns = [np.array([(c, -s), (s, c)]) for c, s in ((1, 0), (0, 1), (-1, 0), (0, -1))]
    return np.concatenate([quarter @ turn.T for turn in turns])


# For each class the outline of about radius 1, and what is cut out of it.
OUTLINES = (
    (_circle(1.0, 32),),
    (_circle(1.15, 4),),
    (_circle(1.25, 3),),
    (_star(),),
    (_circle(1.0, 32), _circle(0.55, 32)),
    (_cross(),),
)
