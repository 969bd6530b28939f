"""Detectron2's Cascade Mask R-CNN R50-FPN, 3x schedule: three box heads in turn (arXiv 1712.00726).

    mrcnn-jax convert --source=detectron2 --config=detectron2/cascade_mask_rcnn_r50_fpn_3x \
        --input=model_final.pkl --workdir=runs/converted
    mrcnn-jax predict --workdir=runs/converted --output=out photo.jpg

model_final.pkl is Detectron2's Misc/cascade_mask_rcnn_R_50_FPN_3x;
its model zoo reports box AP 44.3 and mask AP 38.5. This config has not been trained at full size.
"""

from mrcnn_jax.config import Config, presets


def get_config() -> Config:
    config = presets.detectron2_3x()
    presets.as_cascade(config)
    return config
