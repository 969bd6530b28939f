"""Detectron2's Fast R-CNN R50-FPN, 1x schedule: boxes only, on proposals from a file.

    mrcnn-jax convert --source=detectron2 --config=detectron2/fast_rcnn_r50_fpn_1x \
        --input=model_final.pkl --workdir=runs/converted
    mrcnn-jax propose --input=coco_2017_val_box_proposals_ee0dad.pkl --output=COCO/proposals_val.npz
    mrcnn-jax evaluate --workdir=runs/converted --config.data.root=COCO \
        --config.data.val_proposals=proposals_val.npz

model_final.pkl is Detectron2's COCO-Detection/fast_rcnn_R_50_FPN_1x, and the proposals are those of its
PROPOSAL_FILES_TEST, in COCO-Detection/rpn_R_50_FPN_1x/137258492/ beside its models; its model zoo reports box
AP 37.8. Names and shapes are those of Detectron2's source; nobody has run the published files here.
This config has not been trained at full size; training also needs data.train_proposals.
"""

from mrcnn_jax.config import Config, presets


def get_config() -> Config:
    config = presets.detectron2()
    config.model.rpn = False
    config.model.mask = False
    config.train.rpn_post_nms = 2000  # DATASETS.PRECOMPUTED_PROPOSAL_TOPK_TRAIN
    return config
