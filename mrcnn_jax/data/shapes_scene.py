"""Draws one picture of the shapes dataset: geometric shapes and stick figures on a textured background.

Shapes: N corners of a polygon, K keypoints, H x W pixels. Coordinates are x y in pixels, y pointing down.
"""

from dataclasses import dataclass, field

import numpy as np
from PIL import Image, ImageDraw

CATEGORIES = ("circle", "square", "triangle", "figure")
KEYPOINTS = (
    "head", "neck", "left_elbow", "right_elbow", "left_hand", "right_hand", "hip", "left_foot", "right_foot",
)  # fmt: skip
SKELETON = ((0, 1), (1, 2), (2, 4), (1, 3), (3, 5), (1, 6), (6, 7), (6, 8))

_SUPERSAMPLING = 4  # per axis, for antialiased edges
_TRIES = 12  # attempts to place an object among those already there
_SMALLEST = 5  # pixels: minimum shorter side of an object's visible part
_MIN_INSIDE = 0.7  # minimum fraction of an object's box inside the picture
_MIN_VISIBLE = 0.55  # minimum fraction of its pixels in the picture not covered by other objects
_CROWD_PROBABILITY = 0.1

Colour = tuple[int, int, int]


@dataclass
class SceneObject:
    """One object of a picture, or one crowd of objects."""

    category: str
    polygons: list[np.ndarray]  # each [N 2]; the object is their union
    colours: list[Colour]  # one per polygon
    keypoints: np.ndarray | None = None  # [K 2]
    crowd: bool = False
    mask: np.ndarray = field(default_factory=lambda: np.zeros((0, 0), bool))  # [H W] inside the picture
    visible: np.ndarray = field(default_factory=lambda: np.zeros((0, 0), bool))  # [H W] not covered by others

    def moved(self, offset: np.ndarray) -> "SceneObject":
        """A copy of the object shifted by ``offset`` (x, y)."""
        points = None if self.keypoints is None else self.keypoints + offset
        polygons = [polygon + offset for polygon in self.polygons]
        return SceneObject(self.category, polygons, self.colours, points, self.crowd)


def draw_scene(rng: np.random.Generator, size: int) -> tuple[np.ndarray, list[SceneObject]]:
    """A random picture, uint8 ``[size size 3]``, and its objects from back to front.

    Up to 7 objects, and in some pictures a crowd.
    """
    ground, colours = _background(rng, size)
    picture = Image.fromarray(ground)
    scene: list[SceneObject] = []
    if rng.random() < _CROWD_PROBABILITY:
        _place(rng, scene, _crowd(rng, size * rng.uniform(0.25, 0.4), colours), size)
    # From large to small, as later objects cover earlier ones.
    extents = np.sort(np.exp(rng.uniform(np.log(0.08), np.log(0.7), rng.integers(1, 8))))[::-1]
    for extent in extents:
        taken = colours + [colour for item in scene for colour in item.colours]
        _place(rng, scene, _object(rng, extent * size, size, taken), size)
    for item in scene:
        for polygon, colour in zip(item.polygons, item.colours, strict=True):
            coverage, corner = _coverage([polygon], size)
            picture.paste(colour, corner, mask=coverage)
    noise = rng.normal(0, rng.uniform(1, 6), (size, size, 1))
    return np.clip(np.asarray(picture) + noise, 0, 255).astype(np.uint8), scene


def _place(rng: np.random.Generator, scene: list[SceneObject], item: SceneObject, size: int) -> None:
    """Adds ``item`` at a random position that keeps all objects visible enough, or not if none is found."""
    corners = np.concatenate(item.polygons)
    low, high = corners.min(axis=0), corners.max(axis=0)
    for _ in range(_TRIES):
        offset = rng.uniform(0, size, 2) - (low + high) / 2
        clipped = np.clip(high + offset, 0, size) - np.clip(low + offset, 0, size)
        if np.prod(clipped / (high - low)) < _MIN_INSIDE:
            continue
        placed = item.moved(offset)
        placed.mask = placed.visible = _mask(placed.polygons, size)
        remaining = [other.visible & ~placed.mask for other in scene]
        if _extent(placed.mask) >= _SMALLEST and all(
            visible.sum() >= _MIN_VISIBLE * other.mask.sum() and _extent(visible) >= _SMALLEST
            for other, visible in zip(scene, remaining, strict=True)
        ):
            for other, visible in zip(scene, remaining, strict=True):
                other.visible = visible
            scene.append(placed)
            return


def _mask(polygons: list[np.ndarray], size: int) -> np.ndarray:
    """The pixels at least half covered by the union of the polygons, bool ``[size size]``."""
    coverage, (left, top) = _coverage(polygons, size)
    mask = np.zeros((size, size), bool)
    mask[top : top + coverage.height, left : left + coverage.width] = np.asarray(coverage) >= 128
    return mask


def _coverage(polygons: list[np.ndarray], size: int) -> tuple[Image.Image, tuple[int, int]]:
    """The fraction of each pixel inside the union of the polygons, 0 to 255, and the image's corner (x, y).

    The image is the part of the picture around the polygons; outside it the fraction is 0.
    """
    fine = Image.new("L", (size * _SUPERSAMPLING, size * _SUPERSAMPLING))
    draw = ImageDraw.Draw(fine)
    for polygon in polygons:
        # Pillow's integer coordinates are pixel centres.
        draw.polygon((polygon * _SUPERSAMPLING - 0.5).ravel().tolist(), fill=255)
    corners = np.concatenate(polygons)
    left, top = np.clip(np.floor(corners.min(axis=0)).astype(int) - 1, 0, size - 1).tolist()
    right, bottom = np.clip(np.ceil(corners.max(axis=0)).astype(int) + 1, (left + 1, top + 1), size).tolist()
    box = tuple(_SUPERSAMPLING * side for side in (left, top, right, bottom))
    return fine.reduce(_SUPERSAMPLING, box), (left, top)


def _extent(mask: np.ndarray) -> int:
    """The shorter side of a mask's bounding box, in pixels."""
    x1, y1, x2, y2 = mask_bounds(mask)
    return min(x2 - x1, y2 - y1)


def mask_bounds(mask: np.ndarray) -> tuple[int, int, int, int]:
    """The bounding box ``x1 y1 x2 y2`` of a mask ``[H W]``; all 0 if it is empty."""
    columns, rows = np.flatnonzero(mask.any(axis=0)), np.flatnonzero(mask.any(axis=1))
    if len(rows) == 0:
        return 0, 0, 0, 0
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def _object(rng: np.random.Generator, extent: float, size: int, avoid: list[Colour]) -> SceneObject:
    """A random object about ``extent`` pixels in size, centred at the origin."""
    category = CATEGORIES[rng.integers(len(CATEGORIES))]
    if category == "figure":
        return _figure(rng, max(extent, 0.2 * size), avoid)
    return SceneObject(category, [_outline(rng, category, extent)], [_colour(rng, avoid)])


def _crowd(rng: np.random.Generator, extent: float, avoid: list[Colour]) -> SceneObject:
    """A crowd: a dense group of small shapes of one category."""
    category = CATEGORIES[rng.integers(3)]
    polygons = [
        _outline(rng, category, extent * rng.uniform(0.15, 0.25)) + rng.uniform(-extent / 2, extent / 2, 2)
        for _ in range(rng.integers(12, 22))
    ]
    return SceneObject(category, polygons, [_colour(rng, avoid) for _ in polygons], crowd=True)


def _outline(rng: np.random.Generator, category: str, extent: float) -> np.ndarray:
    """The outline ``[N 2]`` of a randomly rotated circle, square or triangle around the origin."""
    turn = rng.uniform(0, 2 * np.pi)
    if category == "circle":
        return _circle(np.zeros(2), extent / 2)
    if category == "square":
        return _directions(turn + np.pi / 2 * np.arange(4)) * extent / 2**0.5
    corners = turn + np.pi * 2 / 3 * np.arange(3) + rng.uniform(-0.25, 0.25, 3)
    return _directions(corners) * extent * 0.6


def _figure(rng: np.random.Generator, height: float, avoid: list[Colour]) -> SceneObject:
    """A stick figure ``height`` pixels tall that faces the viewer: its left hand is on the picture's right.

    Left limbs stay on that side, so position alone tells left from right, and the mirror image of a figure,
    with the left and right names swapped, is again a valid figure.
    """
    # Limb angles are measured from straight down, positive towards the figure's left.
    side = np.array([1, -1])
    upper_arm = side * rng.uniform(np.pi / 6, np.pi * 0.8, 2)
    lower_arm = side * np.clip(np.abs(upper_arm) + rng.uniform(-1, 1, 2), 0.1, np.pi * 0.95)
    leg = side * rng.uniform(0.15, 0.6, 2)
    head, neck, hip = np.array([0, -0.36]), np.array([0, -0.2]), np.array([0, 0.1])
    elbows = neck + 0.2 * _directions(upper_arm)
    hands = elbows + 0.18 * _directions(lower_arm)
    feet = hip + 0.4 * _directions(leg)
    thickness = rng.uniform(0.09, 0.12)

    limbs = [(hip, feet[0]), (hip, feet[1]), (neck, elbows[0]), (neck, elbows[1]), (elbows[0], hands[0])]
    limbs += [(elbows[1], hands[1]), (neck, hip)]
    polygons = [_capsule(start, stop, thickness) for start, stop in limbs] + [_circle(head, 0.14)]
    points = np.stack([head, neck, *elbows, *hands, hip, *feet])
    tilt = rng.uniform(-0.35, 0.35)
    turn = height * np.array([[np.cos(tilt), np.sin(tilt)], [-np.sin(tilt), np.cos(tilt)]])
    body = _colour(rng, avoid)
    return SceneObject(
        "figure",
        [polygon @ turn for polygon in polygons],
        [body] * len(limbs) + [_colour(rng, avoid)],
        keypoints=points @ turn,
    )


def _directions(angles: np.ndarray) -> np.ndarray:
    """Unit vectors ``[N 2]``; the angles are measured from straight down, positive towards the right."""
    return np.stack([np.sin(angles), np.cos(angles)], axis=-1)


def _circle(centre: np.ndarray, radius: float) -> np.ndarray:
    return centre + radius * _directions(np.linspace(0, 2 * np.pi, 32, endpoint=False))


def _capsule(start: np.ndarray, stop: np.ndarray, thickness: float) -> np.ndarray:
    """The outline of a thick line with rounded ends."""
    along = np.arctan2(*(stop - start))
    half = np.linspace(-np.pi / 2, np.pi / 2, 7)
    return np.concatenate(
        [stop + thickness / 2 * _directions(along + half), start - thickness / 2 * _directions(along + half)]
    )


def _colour(rng: np.random.Generator, avoid: list[Colour]) -> Colour:
    """A random colour clearly different from those in ``avoid``."""
    candidates = rng.integers(0, 256, (16, 3))
    distance = np.linalg.norm(candidates[:, None] - np.array(avoid), axis=-1).min(axis=1)
    # Two colours are at most 442 apart; with many to avoid, settle for the farthest candidate.
    far = np.flatnonzero(distance > 110)
    red, green, blue = candidates[far[0] if len(far) else distance.argmax()].tolist()
    return red, green, blue


def _background(rng: np.random.Generator, size: int) -> tuple[np.ndarray, list[Colour]]:
    """A background ``[size size 3]`` textured between two similar colours, and the two colours."""
    first = rng.uniform(30, 225, 3)
    second = np.clip(first + rng.normal(0, 30, 3), 0, 255)
    y, x = np.mgrid[:size, :size] / size
    angle = rng.uniform(0, 2 * np.pi)
    across, along = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
    frequency = rng.uniform(3, 12)
    texture = rng.integers(4)
    if texture == 0:  # gradient
        blend = (across - across.min()) / np.ptp(across)
    elif texture == 1:  # stripes
        blend = 0.5 + 0.5 * np.sin(2 * np.pi * frequency * across)
    elif texture == 2:  # checker
        blend = (np.floor(frequency * across) + np.floor(frequency * along)) % 2
    else:  # clouds
        cells = Image.fromarray(rng.integers(0, 256, (6, 6)).astype(np.uint8))
        blend = np.asarray(cells.resize((size, size), Image.Resampling.BICUBIC)) / 255
    ground = first + blend[..., None] * (second - first)
    return ground.astype(np.uint8), [_whole(first), _whole(second)]


def _whole(colour: np.ndarray) -> Colour:
    red, green, blue = (int(channel) for channel in colour)
    return red, green, blue
