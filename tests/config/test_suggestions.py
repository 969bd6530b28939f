"""What a user who types a field that does not exist is told."""

import re

import pytest

from mrcnn_jax.config.fields import SETTINGS
from mrcnn_jax.config.suggestions import _ANSWERS, _OTHER_NAMES, suggest


@pytest.mark.parametrize(
    ("name", "said"),
    [
        # Detectron2
        ("SOLVER.BASE_LR", "use train.learning_rate"),
        ("SOLVER.MAX_ITER", "use train.steps"),
        ("SOLVER.STEPS", "use train.decay_steps"),
        ("SOLVER.GAMMA", "use train.decay_factor"),
        ("SOLVER.WARMUP_ITERS", "use train.warmup_steps"),
        ("SOLVER.IMS_PER_BATCH", "use train.batch_size: images over all devices"),
        ("SOLVER.AMP.ENABLED", "use model.dtype: 'bfloat16'"),
        ("SOLVER.WEIGHT_DECAY", "nearest: train.weight_decay"),
        ("MODEL.PIXEL_MEAN", "nearest: pixel_mean"),
        ("MODEL.RESNETS.DEPTH", "nearest: backbone_depth"),
        ("MODEL.ROI_HEADS.SCORE_THRESH_TEST", "use test.score_threshold"),
        ("MODEL.ROI_MASK_HEAD.POOLER_RESOLUTION", "use model.mask_pool_size"),
        ("MODEL.ROI_MASK_HEAD.CLS_AGNOSTIC_MASK", "use model.mask_agnostic"),
        ("MODEL.ROI_BOX_HEAD.CLS_AGNOSTIC_BBOX_REG", "use model.box_agnostic"),
        ("MODEL.RPN.NMS_THRESH", "use train.rpn_nms_iou or test.rpn_nms_iou"),
        ("MODEL.ROI_BOX_HEAD.POOLER_TYPE", "use model.roi_pooling or model.roi_aligned"),
        ("MODEL.ROI_KEYPOINT_HEAD.LOSS_WEIGHT", "use train.keypoint_weight"),
        ("MODEL.RPN.BBOX_REG_LOSS_WEIGHT", "use train.rpn_box_loss_weight"),
        ("MODEL.RPN.LOSS_WEIGHT", "use train.rpn_box_loss_weight or train.rpn_objectness_weight"),
        (
            "MODEL.ROI_MASK_HEAD.LOSS_WEIGHT",
            "use train.rpn_objectness_weight, train.rpn_box_loss_weight, train.box_loss_weight or "
            "train.keypoint_weight; the others are 1",
        ),
        ("MODEL.BACKBONE.FREEZE_AT", "use model.backbone_frozen_stages"),
        ("DATALOADER.NUM_WORKERS", "tf.data chooses how many images are read at a time"),
        ("OUTPUT_DIR", "use the flag --workdir"),
        ("INPUT.CROP.TYPE", "use data.crop"),
        ("SEED", "nearest: train.seed"),
        # torchvision
        ("train.lr", "use train.learning_rate"),
        ("train.batch-size", "nearest: batch_size"),
        ("train.lr-steps", "use train.decay_steps"),
        ("model.trainable-backbone-layers", "use model.backbone_frozen_stages: 5 - trainable layers"),
        ("model.box_detections_per_img", "use test.detections"),
        ("test.rpn_nms_thresh", "use test.rpn_nms_iou"),
        ("model.rpn_pre_nms_top_n_test", "use test.rpn_pre_nms"),
        ("train.num_epochs", "use train.epochs"),
        # MMDetection
        ("runner.max_epochs", "use train.epochs"),
        ("model.test_cfg.rcnn.nms.iou_threshold", "use test.nms_iou"),
        (
            "model.backbone.frozen_stages",
            "use model.backbone_frozen_stages: 1 freezes the stem, 2 layer1 too (MMDetection's + 1)",
        ),
        ("model.with_cp", "use model.backbone_recomputed_stages"),
        ("train.ema", "use train.ema_decay"),
        # Another section, none, or some of the words
        ("train.flip", "nearest: data.flip or test.flip"),
        ("steps", "nearest: train.steps"),
        ("modal.mask", "nearest: model.mask"),
        ("data.batch_size", "nearest: train.batch_size or test.batch_size"),
        (
            "train.decay",
            "nearest: decay_steps, decay_factor, weight_decay, weight_decay_norm, weight_decay_factors or "
            "ema_decay",
        ),
        # Slips
        ("model.backbone_dept", "nearest: backbone_depth"),
        ("test.rpn_pre_mns", "nearest: rpn_pre_nms"),
        ("rpn_pre_mns", "nearest: train.rpn_pre_nms or test.rpn_pre_nms"),
        ("data.filp", "nearest: flip"),
        ("model.backbone_group", "nearest: backbone_groups or backbone_group_width"),
        ("trian", "nearest: train"),
        # Nothing near
        ("foo.bar", "the sections are model, data, train, test"),
        ("zebra", "the sections are model, data, train, test"),
        ("...", "the sections are model, data, train, test"),
        ("", "the sections are model, data, train, test"),
    ],
)
def test_answers_by_hand(name, said):
    assert suggest(name) == said


@pytest.mark.parametrize("word", ["dropout", "shuffle", "label_smoothing", "swa", "zebra", "x", ""])
def test_where_nothing_is_near_the_fields_of_the_section_are_listed(word):
    for name in (f"train.{word}", f"TRAIN.{word.upper()}", f"train.what.{word}"):
        fields = [field.removeprefix("train.") for field in SETTINGS if field.startswith("train.")]
        assert suggest(name) == f"train has {', '.join(fields)}"


# Without its first letter or with another, eval_images is most like data.val_images.
@pytest.mark.parametrize(
    "field",
    [
        field if number % 4 == 0 else pytest.param(field, marks=pytest.mark.slow)
        for number, field in enumerate(SETTINGS)
        if field != "train.eval_images"
    ],
)
def test_any_letter_left_out_or_mistyped_is_answered_with_the_field(field):
    section, last = field.split(".")
    slips = {last[:i] + letter + last[i + 1 :] for i in range(len(last)) for letter in ("", "x")}
    assert {slip for slip in slips if last not in re.findall(r"\w+", suggest(f"{section}.{slip}"))} == set()


def test_every_name_in_the_tables_leads_to_its_meaning():
    for field, names in _OTHER_NAMES.items():
        assert field in SETTINGS
        for name in names.split():
            assert suggest(name).startswith("use ")
            assert field in re.findall(r"[\w.]+", suggest(name))
    for answer, names in _ANSWERS.items():
        mentioned = re.findall(r"\b(?:model|data|train|test)\.\w+", answer)
        assert set(mentioned) <= {*SETTINGS, "data.train_annotations"}
        for name in names.split():
            assert suggest(name) == suggest(f"train.{name.upper()}") == answer


def test_a_name_has_fields_or_an_answer():
    of_fields, of_answers = (
        [name for names in table.values() for name in names.split()] for table in (_OTHER_NAMES, _ANSWERS)
    )
    assert not set(of_fields) & set(of_answers)
    assert len(set(of_answers)) == len(of_answers)
    assert all(re.fullmatch("[a-z0-9_]+", name) for name in of_fields + of_answers)
