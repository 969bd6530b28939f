"""Table 7, Cityscapes from a model of COCO: R50-FPN.

In the paper: mask AP 36.4 on val; mask AP 32.0, AP50 58.1 on test, by Cityscapes' own metric.
Not trained at full size here (docs/paper.md). ``mrcnn-jax evaluate`` computes COCO's metric.

The model is that of table2a_r50_fpn, trained on COCO. Of its outputs those for all categories but "rider" are
kept (docs/data.md). table7_fine has the commands that make the annotations.

    mrcnn-jax train --config=paper/table7_coco --workdir=runs/table7_coco --init=runs/table2a_r50_fpn
"""

from mrcnn_jax.config import Config, paper


def get_config() -> Config:
    config = paper.r50_fpn()
    paper.on_cityscapes(config, coco=True)
    return config
