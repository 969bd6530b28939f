"""Training examples by the augmentations that need whole masks: see ``needs_scene``."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from mrcnn_jax import images
from mrcnn_jax.config import DataConfig, ModelConfig
from mrcnn_jax.data.affine import PointMap, rotation
from mrcnn_jax.data.augment import jitter_colours, random_part, random_transform
from mrcnn_jax.data.coco import CocoImage
from mrcnn_jax.data.cover import choose_pasted, erase, paste
from mrcnn_jax.data.objects import read_objects
from mrcnn_jax.data.own_augment import Augment, apply_augment
from mrcnn_jax.data.scene import Scene, crop, make_scene, place, rotate
from mrcnn_jax.data.source import DataSource
from mrcnn_jax.data.transform import resized_only, transform_objects, transform_points
from mrcnn_jax.images import Size

Colour = tuple[float, ...]  # a value for each channel


@dataclass(frozen=True)
class Extras:
    """What these augmentations need besides the config."""

    augment: Augment | None = None  # a function of one's own
    fill: Colour = (124, 116, 104)  # of erased rectangles, and of what is outside a turned or pasted image
    # Draws the index of the image whose objects are pasted; None: any.
    choose_other: Callable[[np.random.Generator], int] | None = None


def needs_scene(config: DataConfig, augment: Augment | None = None) -> bool:
    """Whether training examples are made of whole masks, not of box-frame masks."""
    return bool(config.crop or config.rotation or config.copy_paste or config.erase or augment is not None)


def mean_colour(model: ModelConfig) -> Colour:
    """The mean of the pixels, which is 0 for the model, in the order of an image's channels."""
    colour = model.pixel_mean
    if model.pixel_type == "uint8":
        colour = tuple(round(min(value, 255)) for value in colour)
    return colour if model.pixel_order == "rgb" else (*colour[2::-1], *colour[3:])


class SceneLoader:
    """Loads training examples of a source, by the config's augmentations and one's own."""

    def __init__(
        self,
        source: DataSource,
        config: DataConfig,
        extras: Extras,
        *,
        rule: str,
        masks: bool,
        keypoints: bool,
    ) -> None:
        """``rule`` resizes pixels; ``masks`` and ``keypoints`` are what the examples have."""
        self._source, self._config, self._extras = source, config, extras
        self._rule, self._masks, self._keypoints = rule, masks, keypoints
        # Detectron2 cuts out parts by the boxes alone if the model has no masks. All else needs the masks.
        only_crop = not (config.rotation or config.copy_paste or config.erase or extras.augment)
        self._reads_masks = masks or not only_crop

    def load(
        self, index: int, *, generator: np.random.Generator, canvas: Size, turned: bool
    ) -> tuple[np.ndarray, Size, dict[str, np.ndarray], PointMap]:
        """An image's canvas, its size, its rows of ground truth, and where its points have gone."""
        config, source = self._config, self._source
        paste_generator, erase_generator, other_generator = generator.spawn(3)
        scene, points = self._placed(index, generator, canvas, turned)
        if paste_generator.random() < config.copy_paste:
            choose = self._extras.choose_other or (lambda drawn: int(drawn.integers(len(source.ids))))
            other_index = choose(paste_generator)
            turn = config.quarter_turns and paste_generator.random() < 0.5
            other, _ = self._placed(other_index, other_generator, canvas, turn)
            scene = paste(scene, other, choose_pasted(other, paste_generator), fill=self._extras.fill)
        if erase_generator.random() < config.erase:
            scene = erase(scene, erase_generator, fill=self._extras.fill)
        return images.pad(scene.pixels, canvas), scene.size, self._rows(index, scene), points

    def _placed(
        self, index: int, generator: np.random.Generator, canvas: Size, turned: bool
    ) -> tuple[Scene, PointMap]:
        """An image and its objects on the canvas, but not covered yet, and where its points have gone."""
        config, source = self._config, self._source
        crop_generator, rotation_generator, own_generator = generator.spawn(3)
        picture = source.read(index)
        scene = make_scene(
            picture.pixels,
            source.annotations(index),
            masks=self._reads_masks,
            keypoint_offset=config.keypoint_offset,
        )
        maps: list[PointMap] = []
        if config.crop and (part := random_part(crop_generator, scene.size, config)) is not None:
            size, window = part
            if size != scene.size:
                resize = resized_only(scene.size, size)
                maps.append(partial(transform_points, transform=resize))
                # To 8 bits, which colours are jittered in.
                rule = "detectron2" if self._rule == "torchvision" else self._rule
                scene = place(scene, resize, rule=rule, flip_pairs=())
            corner = np.array([window[1], window[0]])
            maps.append(lambda points: points - corner)
            scene = crop(scene, *window)
        if config.rotation:
            degrees = rotation_generator.uniform(-config.rotation, config.rotation)
            maps.append(rotation(scene.size, degrees))
            scene = rotate(scene, degrees, fill=self._extras.fill)
        if self._extras.augment is not None:
            scene = apply_augment(
                self._extras.augment, scene, own_generator, source.categories, where=picture.name
            )
        transform = random_transform(generator, scene.size, canvas, config, turned=turned)
        if config.colour_jitter:
            scene = Scene(jitter_colours(scene.pixels, generator), scene.items)
        maps.append(lambda points: transform_points(points, transform))
        placed = place(scene, transform, rule=self._rule, flip_pairs=source.categories.flip_pairs)

        def points(original: np.ndarray) -> np.ndarray:
            for moved in maps:
                original = moved(original)
            return original

        return placed, points

    def _rows(self, index: int, scene: Scene) -> dict[str, np.ndarray]:
        config, categories = self._config, self._source.categories
        (height, width), image_id = scene.size, int(self._source.ids[index])
        objects = read_objects(
            CocoImage(image_id, Path(), "", height, width, scene.items),
            mask_grid=config.mask_grid if self._masks else 0,
            num_keypoints=len(categories.keypoint_names),
        )
        return transform_objects(
            objects,
            resized_only(scene.size, scene.size),
            max_objects=config.max_objects,
            mask_grid=config.mask_grid if self._masks else None,
            keypoints=self._keypoints,
            flip_pairs=categories.flip_pairs,
        )
