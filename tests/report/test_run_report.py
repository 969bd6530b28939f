"""Reports on runs whose results were made by hand (``hand_made``)."""

import dataclasses
import html
import json
import re
from pathlib import Path

import pytest
from tensorboardX import SummaryWriter

from mrcnn_jax.config import Config
from mrcnn_jax.data.coco_categories import COCO
from mrcnn_jax.data.open_data_source import open_validation_source
from mrcnn_jax.evaluation.average_precision import average_precision
from mrcnn_jax.evaluation.ground_truth import ground_truth
from mrcnn_jax.report import run_report
from mrcnn_jax.report.published import published_like
from mrcnn_jax.report.run_report import write_report
from mrcnn_jax.runs.description import write_run
from mrcnn_jax.weights.zoo_models import named_config
from tests.report.hand_made import BALL, FIGURE, FILES, NEVER, annotations, entries, make_run
from tests.report.test_page import check_document
from tests.run_command import run_here


def report(folder: Path, **options) -> str:
    """The page of the run in ``folder`` with the detections that are there."""
    write_report(folder / "run", folder / "out.html", detections=folder / "found.json", **options)
    text = (folder / "out.html").read_text(encoding="utf-8")
    check_document(text)
    return text


def rows_of(text: str, section: str) -> list[list[str]]:
    """The text of the cells of every row in a section's tables."""
    part = text[text.index(f'<section id="{section}">') :]
    part = part[: part.index("</section>")]
    return [
        [html.unescape(re.sub("<.*?>", "", cell)) for cell in re.findall("<t[dh].*?>(.*?)</t[dh]>", row)]
        for row in re.findall("<tr.*?>(.*?)</tr>", part)
    ]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("made")
    make_run(folder)
    with SummaryWriter(str(folder / "run" / "tensorboard")) as writer:
        for step in (10, 20):
            writer.add_scalar("train/loss", 30 / step, step)
            writer.add_scalar("train/mask", 10 / step, step)
            writer.add_scalar("train/lr", 0.02, step)
    return folder


@pytest.fixture(scope="module")
def text(folder) -> str:
    return report(folder)


def test_the_numbers_are_those_of_evaluate(folder, text):
    config = Config(data=run_report.read_run(folder / "run").config.data)
    config.model.keypoint = True
    source = open_validation_source(config)
    rows = {row[0]: row[1:] for row in rows_of(text, "overview")}
    assert rows[""] == ["AP", "AP50", "AP75", "APs", "APm", "APl", "AR"]
    for kind, name in (("bbox", "box"), ("segm", "mask"), ("keypoints", "keypoint")):
        found = average_precision(
            ground_truth(source),
            entries(),
            kind,
            category_ids=(7,) if kind == "keypoints" else (3, 7, 9),
            sigmas=source.categories.sigmas,
        )
        wanted = [found.summary.get(column) for column in rows[""][:-1]]
        wanted.append(found.summary["AR20" if kind == "keypoints" else "AR100"])
        assert rows[name] == ["-" if value is None else f"{value:.1f}" for value in wanted]
        card = f"<span>{name} AP</span><b>{found.summary['AP']:.1f}</b>"
        assert card in text


def test_what_was_measured_is_said(text):
    assert (
        "3 images with 3 objects of 3 categories. 1 crowd, and what is found in it, does not count." in text
    )
    assert "6 detections. At most 20 or 100 detections of an image and category count" in text


def test_categories(text):
    head, *rows = rows_of(text, "categories")
    assert head == [
        *("category", "objects", "box AP", "", "mask AP", "keypoint AP"),
        *("mask AP50", "mask AP75", "mask APs", "mask APm", "mask APl"),
        *("precision", "recall", "false", "missed", "best score"),
    ]
    # The lowest AP first; those without objects at the end. At the best score, 0.80, the figures are 1 of 2.
    figure, ball, points = "25.2", "100.0", "29.4"  # one of two points is right of what is inaccurate
    assert rows[0][:6] == [FIGURE, "2", figure, "", figure, points]
    assert rows[0][-5:] == ["50.0", "50.0", "1", "1", "0.80"]
    assert rows[1][:6] == [BALL, "1", ball, "", ball, "-"] and rows[1][-5:] == [
        "100.0",
        "100.0",
        "0",
        "0",
        "0.90",
    ]
    assert rows[2] == [NEVER, "0", "-", "", "-", "-", *"-----", "-", "-", "0", "0", "-"]


def test_curves_errors_and_confusions(text):
    assert "F1 is highest at a score of 0.80." in text
    assert text.count("AP50 lost, and errors counted") == 2  # boxes and masks
    assert 'aria-label="wrong category' in text
    matrix = rows_of(text, "confusions")[-5:]
    none = "\u00b7"
    assert matrix == [
        ["annotated \u2193 found \u2192", BALL, FIGURE, NEVER, "not found"],
        [BALL, "1", none, none, none],
        [FIGURE, none, "1", none, "1"],
        [NEVER, none, none, none, none],
        ["nothing annotated", none, "1", none, ""],
    ]
    assert "No category was taken for another." in text


def test_pictures(text):
    captions = [
        html.unescape(re.sub("<.*?>", "", item)) for item in re.findall("<figcaption>(.*?)</fig", text)
    ]
    captions = [item for item in captions if "(image" in item]
    assert captions == [
        f"images/{FILES[1]} (image 2): 0 of 0 objects found, 1 false. Highest false: {FIGURE} 0.95, "
        "nothing is annotated there.",
        f"{FIGURE}: 1 missed and 0 false of 1 and 1. "
        f"images/{FILES[2]} (image 3): 0 of 1 objects found, 0 false.",
        f"images/{FILES[0]} (image 1): 2 of 2 objects found, 0 false.",
    ]
    assert text.count("data:image/webp;base64,") == 6
    assert html.escape(f"images/{FILES[0]}, annotated: 2 of 2 objects found, 0 false") in text


def test_training(text):
    assert "As the run's TensorBoard files have them, up to step 20." in text.replace("&#x27;", "'")
    assert 'aria-label="loss over step. training: from 3 at 10 to 1.5 at 20, at most 3 at 10"' in text
    assert 'aria-label="rate over step. from 0.02 at 10' in text


def test_names_are_escaped(text):
    assert BALL not in text and "<i>" not in text


def test_the_same_results_make_the_same_file(folder, text):
    assert report(folder) == text


def test_a_score_of_ones_own(folder):
    text = report(folder, score=0.65, pictures=0)
    assert "The dashed line is at 0.65" in text and 'id="pictures"' not in text
    assert rows_of(text, "categories")[1][-5:-1] == ["50.0", "50.0", "1", "1"]
    assert rows_of(text, "categories")[2][-5:-1] == ["50.0", "100.0", "1", "0"]


@pytest.mark.parametrize("keypoints", [False, True])
def test_a_run_without_masks(tmp_path, keypoints):
    make_run(tmp_path, masks=False, keypoints=keypoints)
    text = report(tmp_path, pictures=1)
    names = [row[0] for row in rows_of(text, "overview")]
    assert names == ["", "box", *["keypoint"] * keypoints]
    assert "of boxes at an IoU of 0.50" in text and "mask AP" not in text
    assert 'id="training"' not in text


def test_comparison(folder, text):
    """Before, the two correct detections alone were found: of figures, one of two without a false one."""
    (folder / "before.json").write_text(json.dumps(entries()[:2]))
    compared = report(folder, compare=folder / "before.json", pictures=0)
    rows = rows_of(compared, "comparison")
    assert rows[0] == ["", "AP before", "AP now", "change", "95 % interval"]
    kinds = [["box", "75.2", "62.6", "-12.6"], ["mask", "75.2", "62.6", "-12.6"]]
    assert [row[:4] for row in rows[1:3]] == kinds and rows[3][0] == "keypoint"
    low, high = (float(value) for value in rows[1][4].split(" to "))
    assert low <= -12.6 <= high <= 0
    assert [FIGURE, "box", "50.5", "25.2", "-25.2"] in rows
    assert rows[-1] == [BALL, "mask", "100.0", "100.0", "+0.0"]
    assert NEVER not in [row[0] for row in rows] and 'id="comparison"' not in text
    same = report(folder, compare=folder / "found.json", pictures=0)
    assert rows_of(same, "comparison")[1][3:] == ["+0.0", "+0.0 to +0.0"]


def test_nothing_found(tmp_path):
    make_run(tmp_path)
    (tmp_path / "found.json").write_text("[]")
    text = report(tmp_path, pictures=1)
    assert "F1 is highest at a score of -." in text and "The dashed line is at 0.50" in text
    assert rows_of(text, "overview")[1][:3] == ["box", "0.0", "0.0"]


def test_nothing_annotated(tmp_path):
    make_run(tmp_path, masks=False, keypoints=False, sections={"annotations": []})
    text = report(tmp_path, pictures=1)
    assert rows_of(text, "overview")[1] == ["box", *"-------"]


def test_many_categories_and_ties(tmp_path):
    """More categories than the confusions show, of one name, and detections of one score."""
    categories = [{"id": number, "name": "same"} for number in range(1, 41)]
    make_run(tmp_path, masks=False, keypoints=False, sections={"categories": categories})
    ids = enumerate(entries(masks=False, keypoints=False))
    found = [entry | {"score": 0.5, "category_id": 1 + 4 * row} for row, entry in ids]
    (tmp_path / "found.json").write_text(json.dumps(found))
    text = report(tmp_path, pictures=1)
    rows = rows_of(text, "categories")
    assert len(rows) == 41 and {row[0] for row in rows[1:]} == {f"same ({number})" for number in range(1, 41)}
    assert "The 20 categories with most confusions" in text


def test_one_category(tmp_path):
    content = annotations(masks=False, keypoints=False)
    sections = {
        "categories": content["categories"][:1],
        "annotations": [item for item in content["annotations"] if item["category_id"] == 3],
    }
    make_run(tmp_path, masks=False, keypoints=False, sections=sections)
    found = [entry for entry in entries(masks=False, keypoints=False) if entry["category_id"] == 3]
    (tmp_path / "found.json").write_text(json.dumps(found))
    text = report(tmp_path, pictures=0)
    assert "1 object of 1 category" in text and 'id="confusions"' not in text
    assert "Box, by category" not in text


def test_lvis(tmp_path):
    """Its limit and frequencies; an image that is not annotated for a category has no false ones of it."""
    content = annotations(keypoints=False)
    sections = {
        "categories": [
            item | {"frequency": frequency}
            for item, frequency in zip(content["categories"], "rcf", strict=True)
        ],
        "images": [
            item | {"neg_category_ids": [9] if item["id"] == 1 else [], "not_exhaustive_category_ids": []}
            for item in content["images"]
        ],
        "annotations": content["annotations"][:3],
    }
    make_run(tmp_path, keypoints=False, sections=sections)
    text = report(tmp_path, pictures=1, compare=tmp_path / "found.json")
    assert rows_of(text, "comparison")[2] == [
        "mask",
        *rows_of(text, "overview")[2][1:2] * 2,
        "+0.0",
        *["+0.0 to +0.0"],
    ]
    head, row, *_ = rows_of(text, "overview")
    assert head[7:] == ["APr", "APc", "APf", "AR300"] and row[7:10] == ["100.0", "50.5", "-"]
    assert "At most 300 detections of an image count" in text
    assert [row[2] for row in rows_of(text, "categories")[1:]] == ["c", "r", "f"]


def test_published_models_of_the_same_network(tmp_path):
    """A run with COCO's 80 categories and the model of torchvision's Mask R-CNN."""
    categories = [{"id": number, "name": name} for number, name in zip(COCO.ids, COCO.names, strict=True)]
    made = make_run(tmp_path, keypoints=False, sections={"categories": categories})
    config = dataclasses.replace(made, model=named_config("torchvision/mask_rcnn_r50_fpn").model)
    write_run(tmp_path / "published", config, open_validation_source(config).categories)
    found = json.loads((tmp_path / "found.json").read_text())
    write_report(
        tmp_path / "published", tmp_path / "out.html", detections=tmp_path / "found.json", pictures=0
    )
    rows = rows_of((tmp_path / "out.html").read_text(), "overview")
    model = "torchvision/mask_rcnn_r50_fpn, published"
    assert found and [row[:2] for row in rows if row[0] == model] == [[model, "37.9"], [model, "34.6"]]
    assert "on the same images; this one was on 3." in (tmp_path / "out.html").read_text()
    assert "COCO val2017, 5,000 images" in (tmp_path / "out.html").read_text()


def test_the_most_similar_published_models_come_first():
    """configs/coco.py has layers of torchvision and MMDetection, which round and sample differently."""
    torchvision = named_config("torchvision/mask_rcnn_r50_fpn")
    like = [model.name for model in published_like(torchvision, COCO)]
    assert like[0] == "torchvision/mask_rcnn_r50_fpn" and len(like) > 1
    like = [model.name for model in published_like(named_config("coco"), COCO)]
    assert like[0].startswith("mmdetection/mask_rcnn_r50_fpn") and "torchvision/mask_rcnn_r50_fpn" in like
    model = dataclasses.replace(torchvision.model, roi_pooling="pool")
    assert published_like(dataclasses.replace(torchvision, model=model), COCO) == []


def test_proposals_have_recall(tmp_path, monkeypatch):
    made = make_run(tmp_path, masks=False, keypoints=False, box=False)
    recall = {f"AR{size}@{limit}": 12.5 for limit in (100, 1000) for size in ("", "s", "m", "l")}
    recall["ARl@100"] = None
    monkeypatch.setattr(run_report, "step_of_weights", lambda *_: 7)
    monkeypatch.setattr(run_report, "load_proposer", lambda *_, **__: None)
    monkeypatch.setattr(run_report, "evaluate_proposals", lambda *_, **__: {"proposals": recall})
    assert write_report(tmp_path / "run", tmp_path / "out.html") == {"proposals": recall}
    text = (tmp_path / "out.html").read_text()
    check_document(text)
    assert rows_of(text, "overview")[1] == ["100 proposals", "12.5", "12.5", "12.5", "-"]
    assert "Step 7 of " in text and 'id="categories"' not in text and not made.model.box
    with pytest.raises(ValueError, match=r"found\.json: .*run is a region proposal network alone"):
        report(tmp_path)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--workdir=torchvision/mask_rcnn_r50_fpn"], "error: --output is missing: torchvision/mask_rcnn"),
        (["--workdir=run", "--output=out.txt"], "error: --output=out.txt: must end in .html"),
        (["--workdir=run", "--output=no/out.html"], "error: --output=no/out.html: there is no folder no"),
        (["--workdir=run", "--detections=none.json"], "error: none.json: No such file"),
        (["--workdir=run", "--detections=run/report.html"], "run/report.html is an input and would be"),
        (["--workdir=run", "--compare=run/report.html"], "run/report.html is an input and would be"),
        (["--workdir=run", "--step=3", "--detections=found.json"], "--step and --detections=found.json excl"),
        (["--workdir=run", "--config.data.val_images=no"], "there is no such folder (data.val_images)"),
        (["--workdir=run"], "checkpoints: there is no checkpoint yet"),
    ],
)
def test_errors_of_the_command(folder, arguments, message):
    done = run_here("report", *arguments, directory=folder)
    assert done.returncode == 1 and message in done.stderr
    assert not (folder / "run" / "report.html").exists()


def test_the_command(folder, text):
    done = run_here(
        "report",
        "--workdir=run",
        "--detections=found.json",
        "--output=by_command.html",
        "--pictures=0",
        directory=folder,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[0].split() == ["AP", "AP50", "AP75", "APs", "APm", "APl", "AR"]
    assert done.stdout.endswith("\n\nwritten to by_command.html\n")
    written = (folder / "by_command.html").read_text(encoding="utf-8")
    assert rows_of(written, "overview") == rows_of(text, "overview")
