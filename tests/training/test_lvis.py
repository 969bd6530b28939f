"""Training and evaluation on annotations in LVIS's format."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from mrcnn_jax import evaluate
from mrcnn_jax.training import loop

FREQUENCIES = "r", "c", "f", "f"


@pytest.fixture(scope="module")
def lvis(config):
    """The config for the same pictures, annotated as LVIS's, with fewer objects of the first category."""
    root = Path(config.data.root)
    for split in ("train", "val"):
        content = json.loads((root / f"annotations/instances_{split}.json").read_text())
        rarest = content["categories"][0]["id"]
        rare = [item for item in content["annotations"] if item["category_id"] == rarest]
        dropped = {item["id"] for item in rare[1:] if split == "train" and item["image_id"] % 5}
        content["annotations"] = [item for item in content["annotations"] if item["id"] not in dropped]
        for image in content["images"]:
            present = {x["category_id"] for x in content["annotations"] if x["image_id"] == image["id"]}
            image["coco_url"] = f"http://images.cocodataset.org/{split}/{image.pop('file_name')}"
            absent = [entry["id"] for entry in content["categories"] if entry["id"] not in present]
            image["neg_category_ids"], image["not_exhaustive_category_ids"] = absent[:1], []
        for entry, frequency in zip(content["categories"], FREQUENCIES, strict=True):
            entry["frequency"] = frequency
        (root / f"annotations/lvis_{split}.json").write_text(json.dumps(content))
    data = dataclasses.replace(
        config.data,
        train_images=".",
        train_annotations="annotations/lvis_train.json",
        val_images=".",
        val_annotations="annotations/lvis_val.json",
        repeat_threshold=1.0,
    )
    model = dataclasses.replace(config.model, box_scores="sigmoid", keypoint=False)
    train = dataclasses.replace(config.train, federated_classes=3)
    return dataclasses.replace(config, data=data, model=model, train=train)


def test_the_step_gets_the_image_counts_and_an_epoch_has_the_repetitions(
    lvis, tmp_path, capsys, counted_steps, monkeypatch
):
    given = []
    make = loop.compile_step
    monkeypatch.setattr(loop, "compile_step", lambda *arguments: given.append(arguments) or make(*arguments))
    train = dataclasses.replace(lvis.train, epochs=2.0, eval_every=0)
    loop.train(dataclasses.replace(lvis, train=train), tmp_path)
    *_, counts = given[0]
    content = json.loads((Path(lvis.data.root) / lvis.data.train_annotations).read_text())
    images = {(item["image_id"], item["category_id"]) for item in content["annotations"]}
    ids = [entry["id"] for entry in content["categories"]]
    assert counts.tolist() == [sum(category == key for _, category in images) for key in ids]
    share = counts / len({image for image, _ in images})
    factors = [
        max(1 / np.sqrt(share[ids.index(category)]) for image, category in images if image == key)
        for key in {image for image, _ in images}
    ]
    steps = int(np.ceil(2 * sum(factors) / 8))
    printed = capsys.readouterr().out
    assert "data.repeat_threshold is 1: for rare categories" in printed
    assert f"train.epochs is 2: {steps} steps of 8 images" in printed
    assert len(counted_steps) == steps


@pytest.mark.slow
def test_a_run(lvis, tmp_path):
    """Steps, the evaluation after the last, and another one of the run."""
    found = {}
    assert loop.train(lvis, tmp_path, callbacks=[lambda step, values: found.update(values)])
    assert np.isfinite(found["train/box_class"])
    assert {"validation/bbox_APr", "validation/segm_APf", "validation/segm_AR300"} <= found.keys()
    metrics = evaluate(tmp_path)
    for kind in ("bbox", "segm"):
        assert metrics[kind]["AP"] == pytest.approx(found[f"validation/{kind}_AP"])
        assert metrics[kind]["APc"] is not None
