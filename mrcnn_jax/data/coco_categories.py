"""COCO's categories, for pretrained weights whose files do not include them."""

from mrcnn_jax.data.categories import COCO_KEYPOINTS, COCO_SIGMAS, flip_pairs
from mrcnn_jax.runs.categories import UNUSED, Categories

# https://cocodataset.org, from id 1; ten ids have no category.
_NAMES_BY_ID = (
    "person", "bicycle", "car", "motorcycle", "airplane", "bus", "train", "truck", "boat", "traffic light",
    "fire hydrant", UNUSED, "stop sign", "parking meter", "bench", "bird", "cat", "dog", "horse", "sheep",
    "cow", "elephant", "bear", "zebra", "giraffe", UNUSED, "backpack", "umbrella", UNUSED, UNUSED,
    "handbag", "tie", "suitcase", "frisbee", "skis", "snowboard", "sports ball", "kite", "baseball bat",
    "baseball glove", "skateboard", "surfboard", "tennis racket", "bottle", UNUSED, "wine glass", "cup",
    "fork", "knife", "spoon", "bowl", "banana", "apple", "sandwich", "orange", "broccoli", "carrot",
    "hot dog", "pizza", "donut", "cake", "chair", "couch", "potted plant", "bed", UNUSED, "dining table",
    UNUSED, UNUSED, "toilet", UNUSED, "tv", "laptop", "mouse", "remote", "keyboard", "cell phone",
    "microwave", "oven", "toaster", "sink", "refrigerator", UNUSED, "book", "clock", "vase", "scissors",
    "teddy bear", "hair drier", "toothbrush",
)  # fmt: skip
_USED = tuple((category, name) for category, name in enumerate(_NAMES_BY_ID, start=1) if name != UNUSED)

# Pairs of keypoints, counted from 1 as in COCO's files.
_SKELETON = (
    (16, 14), (14, 12), (17, 15), (15, 13), (12, 13), (6, 12), (7, 13), (6, 7), (6, 8), (7, 9), (8, 10),
    (9, 11), (2, 3), (1, 2), (1, 3), (2, 4), (3, 5), (4, 6), (5, 7),
)  # fmt: skip

# The 80 categories: labels 1 to 80 by ascending id.
COCO = Categories(ids=tuple(category for category, _ in _USED), names=tuple(name for _, name in _USED))

# Labels 1 to 90, equal to the category ids as in torchvision; ten are unused.
COCO_BY_ID = Categories(ids=tuple(range(1, len(_NAMES_BY_ID) + 1)), names=_NAMES_BY_ID)

# The only category with keypoints.
COCO_PERSON = Categories(
    ids=(1,),
    names=("person",),
    keypoint_labels=(1,),
    keypoint_names=COCO_KEYPOINTS,
    skeleton=tuple((a - 1, b - 1) for a, b in _SKELETON),
    flip_pairs=flip_pairs(COCO_KEYPOINTS),
    sigmas=COCO_SIGMAS,
)
