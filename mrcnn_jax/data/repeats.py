"""Repeats images of rare categories in training (LVIS, arXiv 1908.03195, appendix B.2).

Shapes: N images, C categories, P pairs of an image and a category that it has an object of.
"""

import numpy as np


def repeat_factors(
    image_labels: np.ndarray, trained: np.ndarray, *, num_categories: int, threshold: float
) -> np.ndarray:
    """How often each image is seen in an epoch, on average, float64 ``[N]``; 1 where it is not repeated.

    A category in a share f of the trained images has the factor max(1, sqrt(``threshold`` / f)), and an image
    has the largest of its categories' (Detectron2's ``repeat_factors_from_category_frequency``).

    Args:
        image_labels: ``[P 2]`` int, as ``DataSource.image_labels``; crowds are not in it.
        trained: Whether each image is trained on, bool ``[N]``.
        num_categories: C.
        threshold: The share of the images below which a category's images are repeated, 0 to 1.
    """
    image, label = image_labels[trained[image_labels[:, 0]]].T
    share = np.bincount(label, minlength=num_categories + 1) / max(1, int(trained.sum()))
    factor_of_label = np.sqrt(np.maximum(1.0, threshold / np.maximum(share, np.finfo(float).tiny)))
    factors = np.ones(len(trained))
    np.maximum.at(factors, image, factor_of_label[label])
    return factors
