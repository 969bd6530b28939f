import dataclasses

import numpy as np
import pytest

from mrcnn_jax.config import ModelConfig
from mrcnn_jax.data.open_data_source import open_data_source
from mrcnn_jax.data.open_proposals import describe_shortage, open_proposals
from mrcnn_jax.proposals import ImageProposals, write_proposals
from tests.data.examples import config_of


@pytest.fixture
def fast(folder):
    """The config of a model without an RPN, on two images."""
    for _ in range(2):
        folder.add_object(folder.add_image())
    config = config_of(folder, train_proposals="p.npz")
    return dataclasses.replace(config, model=ModelConfig(rpn=False))


def write(config, source, count):
    boxes = ImageProposals(np.ones((1, 4), np.float32), np.ones(1, np.float32))
    path = f"{config.data.root}/p.npz"
    write_proposals(path, [(int(image_id), boxes) for image_id in source.ids[:count]])
    return path


def test_they_are_found_below_the_root(fast):
    source = open_data_source(fast)
    write(fast, source, 2)
    proposals = open_proposals(fast, source, "train")
    assert proposals is not None and [len(proposals[index].boxes) for index in range(2)] == [1, 1]


def test_a_model_with_an_rpn_has_its_own(fast):
    source = open_data_source(fast)
    assert open_proposals(dataclasses.replace(fast, model=ModelConfig()), source, "train") is None


def test_what_is_missing(fast):
    source = open_data_source(fast)
    with pytest.raises(ValueError, match=r"data\.val_proposals is empty; .* without an RPN"):
        open_proposals(fast, source, "val")
    path = write(fast, source, 1)
    with pytest.raises(ValueError, match=f"{path}: has no proposals for 1 of the 2 images of {source.name}"):
        open_proposals(fast, source, "train")


def test_fewer_than_training_takes(fast):
    source = open_data_source(fast)
    boxes = [ImageProposals(np.ones((count, 4), np.float32), np.ones(count, np.float32)) for count in (2, 3)]
    write_proposals(f"{fast.data.root}/p.npz", zip(source.ids.tolist(), boxes, strict=True))
    proposals = open_proposals(fast, source, "train")
    assert proposals is not None
    fast.train.rpn_post_nms = 2
    assert describe_shortage(proposals, fast) is None
    fast.train.rpn_post_nms = 3
    assert describe_shortage(proposals, fast) == (
        f"{fast.data.root}/p.npz has 2.5 proposals per image on average and 3 at most; train.rpn_post_nms "
        "asks for 3"
    )
