"""Opens the proposals that a config names for a model without an RPN."""

from pathlib import Path
from typing import Literal

import numpy as np

from mrcnn_jax.config import Config
from mrcnn_jax.data.source import DataSource
from mrcnn_jax.proposals import DataProposals, read_proposals


def open_proposals(
    config: Config, source: DataSource, split: Literal["train", "val"]
) -> DataProposals | None:
    """The proposals of the source's images, by index; None for a model with an RPN.

    The file may have proposals of further images, such as those that ``data.skip_bad`` leaves out. Raises
    ValueError, naming the field or the file, if none is named or it does not fit the source's images.
    """
    if config.model.rpn:
        return None
    field = f"{split}_proposals"
    path = getattr(config.data, field)
    if not path:
        raise ValueError(
            f"data.{field} is empty; must be a file of proposals for a model without an RPN (model.rpn is "
            "False): mrcnn-jax propose makes one"
        )
    file = read_proposals(Path(config.data.root) / path)
    return file.of_images(source.ids, source.sizes, source=source.name)


def describe_shortage(proposals: DataProposals, config: Config) -> str | None:
    """A line that says so if images have fewer proposals on average than training takes; else None."""
    wanted = config.train.rpn_post_nms
    counts = np.diff(proposals.file.offsets)[proposals.rows]
    if not len(counts) or counts.mean() >= wanted:
        return None
    return (
        f"{proposals.file.name} has {counts.mean():.1f} proposals per image on average and {counts.max()} at "
        f"most; train.rpn_post_nms asks for {wanted}"
    )
