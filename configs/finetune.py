"""Fine-tunes a detector on your own photographs, at its full size, for a number of epochs.

    mrcnn-jax train --config=finetune --workdir=runs/mine --data=PHOTOS --init=torchvision/mask_rcnn_r50_fpn

``--data`` recognises the usual layouts of COCO-format folders (docs/own_data.md), and ``--init`` is a name of
docs/zoo.md or the directory of a run; the heads keep their outputs for categories of the same name, and
those for the data's other categories are re-initialised. To begin from an ImageNet backbone instead, leave
out ``--init`` and give ``--config.model.backbone_weights=FILE``.

``--config=finetune:detectron2/mask_rcnn_r50_c4_3x`` fine-tunes that config's model; the weights of ``--init``
must be of the same. Set the epochs with ``--config.train.epochs``, and raise the batch size together with the
learning rate if the device has memory for it. (On a CPU a step at this size takes many seconds;
configs/balloon.py has smaller images.)
"""

import runpy
from pathlib import Path

from mrcnn_jax.config import Config


def get_config(model: str = "torchvision/mask_rcnn_r50_fpn") -> Config:
    path = Path(__file__).parent / f"{model}.py"
    if not path.is_file():
        raise ValueError(f"configs/finetune.py:{model}: there is no config {model}")
    config: Config = runpy.run_path(str(path))["get_config"]()
    data, train = config.data, config.train
    data.root = "PHOTOS"
    data.train_images, data.train_annotations = "train", "annotations/instances_train.json"
    data.val_images, data.val_annotations = "val", "annotations/instances_val.json"
    data.train_keypoints = data.val_keypoints = ""
    # torchvision's 10 is for COCO's persons with their 17 keypoints.
    data.min_keypoints = min(data.min_keypoints, 1)
    train.epochs = 20.0
    train.batch_size = 2
    train.learning_rate = 0.0025  # the paper's 0.02 for 16 images, in proportion
    train.schedule, train.decay_steps = "cosine", ()
    train.warmup_steps = 100
    train.clip_norm = 10.0
    train.log_every = 10
    train.checkpoint_every = train.eval_every = 250
    return config
