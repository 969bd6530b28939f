"""The settings ``test``, of evaluation and prediction, declared as in ``fields.py``."""

from dataclasses import dataclass

from mrcnn_jax.config.rules import free, inference, not_negative, one_of, positive, share


@dataclass
class TestConfig:
    """From head outputs to detections."""

    __test__ = False  # not a class of tests, whatever pytest makes of its name

    batch_size: int = free(1, positive)  # images at a time in evaluation
    spatial_devices: int = free(1, positive)  # devices that share each image, in evaluation and prediction
    rpn_pre_nms: int = inference(1000, positive)
    rpn_post_nms: int = inference(1000, positive)  # or from data.val_proposals
    rpn_nms_iou: float = inference(0.7, share)
    score_threshold: float = inference(0.05, share)
    nms_iou: float = inference(0.5, share)  # within a category
    candidates: int = inference(4096, positive)  # best (region, category) pairs that suppression looks at
    detections: int = inference(100, positive)  # per image
    # Of a cascade: the mean of its heads' probabilities (D2), or those of their mean logits ("logit", MMDet).
    cascade_score: str = inference("probability", one_of("probability", "logit"))
    # Pixels: boxes with a shorter side are dropped before suppression (TV 1e-2); 0: empty ones after.
    box_smallest_side: float = inference(0.0, not_negative)
    mask_threshold: float = inference(0.5, positive, share)
    # Bilinear at pixel centres, or "torchvision": in a box of whole pixels.
    mask_paste: str = inference("detectron2", one_of("detectron2", "torchvision"))
    # Of a keypoint: its logit (TV), or "probability" within its region (D2).
    keypoint_score: str = inference("logit", one_of("logit", "probability"))

    # Test-time augmentation (paper appendix B; D2 TEST.AUG): short sides, in pixels, to which every image is
    # resized in turn; (): to data.test_short_side alone.
    scales: tuple[int, ...] = inference((), positive)
    # Pixels: the most that the longer side may have at any of them (D2 4000); 0: data.long_side, in
    # proportion to the scale.
    scales_long_side: int = inference(0, not_negative)
    flip: bool = inference(False)  # detect in the mirrored image, too
