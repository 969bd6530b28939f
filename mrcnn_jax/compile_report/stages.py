"""The stage of the model that an operation belongs to, by JAX's named scopes."""

import re

# The named scopes of the model and of training, in the order in which they run.
STAGES = (
    *("backbone", "fpn", "rpn", "proposals", "roi_pooling", "box_head", "mask_head", "keypoint_head"),
    *("select_detections", "targets", "losses", "optimizer"),
)
PASSES = ("forward", "recomputed", "gradient")
_STAGE = re.compile(rf"\b({'|'.join(STAGES)})\b")


def stage_of(scope: str) -> str:
    """The innermost stage in a scope such as "jit(f)/jvp(backbone)/conv", or "other"."""
    found = _STAGE.findall(scope)
    return found[-1] if found else "other"


def pass_of(scope: str) -> str:
    """Which of ``PASSES`` an operation belongs to."""
    if "rematted_computation" in scope:
        return "recomputed"
    return "gradient" if "transpose(" in scope else "forward"
