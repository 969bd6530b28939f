from mrcnn_jax.data.categories import read_categories_file
from mrcnn_jax.data.coco_categories import COCO, COCO_BY_ID, COCO_PERSON
from mrcnn_jax.runs.categories import UNUSED


def test_by_hand():
    assert (len(COCO), COCO.ids[11], COCO.names[11]) == (80, 13, "stop sign")  # id 12 is unused
    assert (len(COCO_BY_ID), COCO_BY_ID.names[12], COCO_BY_ID.names[11]) == (90, "stop sign", UNUSED)
    assert (COCO.ids[-1], COCO.names[-1]) == (90, "toothbrush")
    assert COCO_PERSON.keypoint_names[COCO_PERSON.skeleton[0][0]] == "left_ankle"


def test_by_id_labels_are_ids_and_skip_no_category():
    assert COCO_BY_ID.ids == tuple(range(1, 91))
    used = [(i, name) for i, name in zip(COCO_BY_ID.ids, COCO_BY_ID.names, strict=True) if name != UNUSED]
    assert used == list(zip(COCO.ids, COCO.names, strict=True))


def test_equals_the_categories_in_cocos_files(shared):
    annotations = shared / "data" / "coco_mini" / "annotations"
    assert read_categories_file(annotations / "instances_val2017.json") == COCO
    assert read_categories_file(annotations / "person_keypoints_val2017.json") == COCO_PERSON
