"""Answers to a field that does not exist: the field that may be meant, or what there is in its place."""

import difflib
import re
from collections.abc import Iterable

from mrcnn_jax.config.fields import SETTINGS

# The least similarity that is worth a suggestion. One typing error leaves at least 0.75 ("filp" of "flip");
# words for which there is no field reach 0.73 ("dropout" and "root").
_SIMILAR = 0.75

# What Detectron2, torchvision, MMDetection and others call a field. Names of more than one part, such as
# Detectron2's SOLVER.STEPS, are given in full where their last part alone means something else.
_OTHER_NAMES = {
    "model.pixel_order": "input_format channel_order to_rgb bgr_to_rgb",
    "model.pixel_mean": "mean image_mean mean_pixel in_channels in_chans image_channel_count",
    "model.pixel_std": "std image_std",
    "model.padding_multiple": "size_divisor size_divisibility pad_size_divisor",
    "model.backbone_width": "stem_out_channels base_channels",
    "model.backbone_groups": "num_groups",
    "model.backbone_group_width": "width_per_group base_width",
    "model.backbone_norm": "resnets_norm norm_cfg norm_layer norm_eval sync_bn",
    "model.backbone_norm_epsilon": "eps bn_eps norm_eps",
    "model.backbone_stride_in_1x1": "style",
    "model.backbone_frozen_stages": "freeze_at freeze",
    "model.backbone_drop_path": "drop_path_rate stochastic_depth_prob",
    "model.backbone_recomputed_stages": "with_cp checkpointing gradient_checkpointing remat",
    "model.fpn_channels": "fpn_out_channels neck_out_channels",
    "model.fpn_fuse": "fuse_type fpn_fuse_type",
    "model.anchor_sizes": "anchor_generator_sizes anchor_generator_scales anchor_scales",
    "model.anchor_ratios": "aspect_ratios ratios",
    "model.rpn": "proposal_generator load_proposals proposal_generator_name",
    "model.rpn_convs": "rpn_conv_dims rpn_num_convs",
    "model.rpn_box_weights": "rpn_bbox_reg_weights",
    "model.rpn_smallest_side": "rpn_min_size min_bbox_size proposal_generator_min_size",
    "model.roi_canonical_size": "canonical_box_size canonical_scale",
    "model.roi_pooling": "pooler_type roi_layer roi_layer_type",
    "model.roi_sampling_ratio": "pooler_sampling_ratio",
    "model.roi_aligned": "pooler_type",
    "model.box_pool_size": "roi_box_head_pooler_resolution pooler_resolution roi_feat_size",
    "model.box_weights": "bbox_reg_weights roi_box_head_bbox_reg_weights",
    "model.box_convs": "roi_box_head_num_conv num_shared_convs",
    "model.box_norm": "roi_box_head_norm",
    "model.box_fcs": "num_fc num_fcs num_shared_fcs",
    "model.box_channels": "fc_dim fc_out_channels representation_size",
    "model.box_agnostic": "cls_agnostic_bbox_reg reg_class_agnostic",
    "model.box_cascade": "cascade num_stages num_cascade_stages roi_box_cascade_head_bbox_reg_weights",
    "model.mask": "mask_on with_mask masks",
    "model.mask_pool_size": "roi_mask_head_pooler_resolution pooler_resolution",
    "model.mask_convs": "roi_mask_head_num_conv mask_head_num_convs",
    "model.mask_norm": "roi_mask_head_norm",
    "model.mask_channels": "roi_mask_head_conv_dim",
    "model.mask_agnostic": "cls_agnostic_mask class_agnostic",
    "model.keypoint": "keypoint_on with_keypoint keypoints",
    "model.keypoint_pool_size": "roi_keypoint_head_pooler_resolution",
    "model.keypoint_channels": "roi_keypoint_head_conv_dims",
    "data.root": "data_root data_path data_dir dataset dataset_root",
    "data.train_images": "img_prefix image_dir image_root images",
    "data.train_annotations": "ann_file json_file datasets_train annotations",
    "data.val_images": "img_prefix image_dir image_root images",
    "data.val_annotations": "ann_file json_file datasets_test annotations",
    "data.train_proposals": "proposal_files proposal_files_train proposal_file",
    "data.val_proposals": "proposal_files_test",
    "data.train_short_sides": "min_size min_size_train img_scale image_size img_size imgsz",
    "data.test_short_side": "min_size min_size_test img_scale image_size img_size imgsz",
    "data.long_side": "max_size max_size_train max_size_test img_scale image_size img_size imgsz",
    "data.train_long_side": "max_size_train",
    "data.canvases": "pad_size pad_shape",
    "data.min_keypoints": "min_keypoints_per_image roi_keypoint_head_min_keypoints_per_image",
    "data.flip": "random_flip flip_ratio flip_prob hflip horizontal_flip",
    "data.flip_vertical": "vflip vertical_flip flip_ud flipud",
    "data.quarter_turns": "rot90 random_rotate90 rotate90",
    "data.rotation": "random_rotation rotate degrees random_rotate",
    "data.crop": "random_crop crop_type crop_enabled input_crop_type",
    "data.crop_share": "crop_prob random_choice",
    "data.crop_short_sides": "random_choice_resize",
    "data.copy_paste": "copypaste use_copypaste simple_copy_paste",
    "data.erase": "cutout cut_out random_erasing coarse_dropout",
    "data.scale_jitter": "lsj large_scale_jitter random_resize ratio_range",
    "data.colour_jitter": "color_jitter photometric_distort photo_metric_distortion",
    "train.steps": "max_iter max_iters iters iterations num_iterations num_steps max_steps total_steps",
    "train.epochs": "epoch max_epochs num_epochs",
    "train.accumulate": (
        "accumulate_grad_batches accumulation_steps accumulative_counts gradient_accumulation_steps "
        "accum_iter grad_accum grad_accum_steps iter_size"
    ),
    "train.seed": "random_seed rng_seed",
    "train.optimizer": "opt optim optimizer_type",
    "train.adam_b2": "beta2 adam_beta2 betas",
    "train.learning_rate": "lr base_lr initial_lr init_lr max_lr peak_lr",
    "train.schedule": "scheduler policy lr_policy lr_scheduler lr_scheduler_name param_scheduler lr_config",
    "train.cosine_end": "base_lr_end eta_min min_lr final_lr",
    "train.decay_steps": "solver_steps lr_steps lr_step lr_config_step lr_step_size step_size milestones",
    "train.decay_factor": "gamma lr_gamma",
    "train.warmup_steps": "warmup_iters lr_warmup_iters warmup_epochs lr_warmup_epochs",
    "train.warmup_factor": "warmup_ratio start_factor lr_warmup_decay",
    "train.warmup": "warmup_method lr_warmup_method",
    "train.weight_decay": "wd",
    "train.weight_decay_norm": "norm_weight_decay",
    "train.clip_norm": "grad_clip clip_grad clip_gradients max_norm max_grad_norm",
    "train.clip_array_norm": "clip_gradients clip_type",
    "train.clip_value": "clip_gradients clip_type",
    "train.frozen": "freeze frozen_layers frozen_parameters freeze_layers freeze_modules",
    "train.rate_factors": "lr_mult lr_factors paramwise_cfg custom_keys lr_factor_func backbone_multiplier",
    "train.weight_decay_factors": "decay_mult wd_mult norm_decay_mult bias_decay_mult weight_decay_overrides",
    "train.ema_decay": "ema use_ema with_ema model_ema model_ema_decay model_ema_enabled polyak",
    "train.precise_bn": "precise_bn_enabled precise_bn_num_iter precisebn update_bn_stats",
    "train.roi_append_gt": "proposal_append_gt add_gt_as_proposals",
    "train.keypoint_normalizer": "normalize_loss_by_visible_keypoints",
    "train.rpn_positive_iou": "rpn_fg_iou_thresh rpn_iou_thresholds pos_iou_thr",
    "train.rpn_negative_iou": "rpn_bg_iou_thresh rpn_iou_thresholds neg_iou_thr",
    "train.rpn_samples": "rpn_batch_size_per_image",
    "train.rpn_positive_fraction": "pos_fraction",
    "train.rpn_pre_nms": "pre_nms_topk_train rpn_pre_nms_top_n_train nms_pre",
    "train.rpn_post_nms": (
        "post_nms_topk_train precomputed_proposal_topk_train rpn_post_nms_top_n_train nms_post "
        "rpn_proposal_max_per_img"
    ),
    "train.rpn_nms_iou": "rpn_nms_thresh rpn_nms_iou_threshold rpn_proposal_nms_iou_threshold",
    "train.rpn_box_loss": "rpn_bbox_reg_loss_type",
    "train.rpn_box_loss_weight": "rpn_bbox_reg_loss_weight rpn_loss_weight",
    "train.rpn_objectness_weight": "rpn_loss_weight",
    "train.rpn_beta": "rpn_smooth_l1_beta smooth_l1_beta",
    "train.roi_samples": "batch_size_per_image roi_heads_batch_size_per_image box_batch_size_per_image",
    "train.roi_positive_fraction": "roi_heads_positive_fraction box_positive_fraction pos_fraction",
    "train.roi_positive_iou": "roi_heads_iou_thresholds box_fg_iou_thresh box_bg_iou_thresh pos_iou_thr",
    "train.cascade_positive_ious": "cascade_ious roi_box_cascade_head_ious",
    "train.box_loss": "bbox_reg_loss_type roi_box_head_bbox_reg_loss_type",
    "train.box_loss_weight": "bbox_reg_loss_weight roi_box_head_bbox_reg_loss_weight",
    "train.box_beta": "roi_box_head_smooth_l1_beta smooth_l1_beta",
    "train.keypoint_weight": "roi_keypoint_head_loss_weight keypoint_loss_weight loss_keypoint_weight",
    "train.log_every": "log_interval log_period log_freq print_freq logger_interval log_config_interval",
    "train.checkpoint_every": "checkpoint_period checkpoint_interval checkpoint_config_interval save_every",
    "train.keep_checkpoints": "max_keep_ckpts max_to_keep",
    "train.eval_every": "eval_period eval_interval evaluation_interval val_interval",
    "train.validation_loss": "val_loss eval_loss compute_val_loss loss_evaluator",
    "train.stop_after": "patience early_stopping early_stop early_stopping_patience es_patience",
    "test.rpn_pre_nms": "pre_nms_topk_test rpn_pre_nms_top_n_test nms_pre",
    "test.rpn_post_nms": (
        "post_nms_topk_test precomputed_proposal_topk_test rpn_post_nms_top_n_test nms_post rpn_max_per_img"
    ),
    "test.rpn_nms_iou": "rpn_nms_thresh rpn_nms_iou_threshold",
    "test.score_threshold": "score_thr score_thresh score_thresh_test box_score_thresh confidence conf_thres",
    "test.nms_iou": "nms_thresh nms_thresh_test box_nms_thresh nms_threshold nms_thr iou_threshold iou_thr",
    "test.detections": "detections_per_image detections_per_img box_detections_per_img max_per_img max_det",
    "test.mask_threshold": "mask_thr_binary mask_thresh",
    "test.scales": "min_sizes test_aug_min_sizes tta_scales img_scales",
    "test.scales_long_side": "test_aug_max_size",
    "test.flip": "test_aug_flip tta_flip",
}

# What to say where a name has no field, or a field that counts otherwise.
_ANSWERS = {
    "the categories come from data.train_annotations, and travel with the run": (
        "num_classes num_categories classes class_names categories"
    ),
    "the keypoints come from data.train_annotations or data.train_keypoints, and travel with the run": (
        "num_keypoints keypoint_names"
    ),
    "use train.batch_size: images over all devices": (
        "ims_per_batch images_per_batch imgs_per_gpu samples_per_gpu batch_size_per_gpu"
    ),
    "use model.backbone_frozen_stages: 1 freezes the stem, 2 layer1 too (MMDetection's + 1)": (
        "frozen_stages backbone_frozen_stages"
    ),
    "use model.backbone_frozen_stages: 5 - trainable layers": "trainable_layers trainable_backbone_layers",
    "use model.dtype: 'bfloat16'": "amp use_amp amp_enabled mixed_precision precision fp16 bf16 bfloat16",
    "use data.keep_empty: True keeps them": (
        "filter_empty filter_empty_gt filter_empty_annotations filter_cfg"
    ),
    "use model.backbone_weights for a backbone; mrcnn-jax convert makes a run of a whole model": (
        "weights pretrained load_from init_cfg weights_backbone"
    ),
    "use train.rpn_objectness_weight, train.rpn_box_loss_weight, train.box_loss_weight or "
    "train.keypoint_weight; the others are 1": "loss_weight",
    "a run is resumed by starting it again with its --workdir": "resume resume_from auto_resume",
    "use the flag --workdir": "output_dir out_dir work_dir workdir log_dir save_dir",
    "tf.data chooses how many images are read at a time": "workers num_workers workers_per_gpu",
    "all devices that JAX finds are used": "device devices gpu gpus gpu_ids num_gpus",
}


def suggest(name: str) -> str:
    """What to say of a dotted ``name`` that is no field: "use train.learning_rate", "nearest: steps".

    Names of other systems and equal names come first, then similar fields and those with all words of the
    last part. Of several, those in the section of ``name`` are preferred, and "nearest" does not repeat that
    section. Where nothing is near, the answer lists the section's fields. Case, hyphens, underscores and
    further dots make no difference.
    """
    parts = name.split(".")
    section = parts[0].lower() if len(parts) > 1 else ""
    for start in range(len(parts)):
        key = _key(".".join(parts[start:]))
        if key in _ANSWER_OF:
            return _ANSWER_OF[key][0]
        if key in _FIELDS_OF:
            return f"use {_either(_preferred(_FIELDS_OF[key], section))}"
        if same := [field for field in SETTINGS if _key(_last(field)) == key]:
            return _nearest(same, section)
    sections = list(dict.fromkeys(field.partition(".")[0] for field in SETTINGS))
    similar = _similar(parts[-1], [*SETTINGS, *([] if section else sections)])
    if near := list(dict.fromkeys(similar + _containing(parts[-1]))):
        return _nearest(near, section)
    if section in sections:
        fields = [_last(field) for field in SETTINGS if field.startswith(f"{section}.")]
        return f"{section} has {', '.join(fields)}"
    return f"the sections are {', '.join(sections)}"


def _nearest(fields: list[str], section: str) -> str:
    return f"nearest: {_either(field.removeprefix(f'{section}.') for field in _preferred(fields, section))}"


def _preferred(fields: list[str], section: str) -> list[str]:
    return [field for field in fields if field.startswith(f"{section}.")] or fields


def _containing(word: str) -> list[str]:
    """The fields that have all words of this one: decay_steps, decay_factor and others for "decay"."""
    words = _words(word)
    return [field for field in SETTINGS if words and words <= _words(_last(field))]


def _similar(word: str, known: list[str]) -> list[str]:
    """Those whose last part is most like the word, if it is similar."""
    parts = [_last(name) for name in known]
    closest = difflib.get_close_matches(word.lower(), parts, n=1, cutoff=_SIMILAR)
    return [name for name, part in zip(known, parts, strict=True) if part in closest]


def _last(field: str) -> str:
    return field.rpartition(".")[2]


def _words(name: str) -> set[str]:
    return set(re.findall("[a-z0-9]+", name.lower()))


def _key(name: str) -> str:
    return re.sub("[^a-z0-9]", "", name.lower())


def _either(names: Iterable[str]) -> str:
    *others, last = names
    return f"{', '.join(others)} or {last}" if others else last


def _by_name(table: dict[str, str]) -> dict[str, list[str]]:
    """The table the other way round, by the key of each name."""
    found: dict[str, list[str]] = {}
    for meaning, names in table.items():
        for name in names.split():
            found.setdefault(_key(name), []).append(meaning)
    return found


_ANSWER_OF, _FIELDS_OF = _by_name(_ANSWERS), _by_name(_OTHER_NAMES)
