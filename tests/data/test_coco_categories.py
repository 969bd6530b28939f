from mrcnn_jax.data.categories import read_categories_file
from mrcnn_jax.data.coco_categories import COCO, COCO_BY_ID, COCO_PERSON, UNUSED


def test_by_hand():
    assert (len(COCO), COCO.ids[11], COCO.names[11]) == (80, 13, "stop sign")  # 12 is no category
    assert (len(COCO_BY_ID), COCO_BY_ID.names[12], COCO_BY_ID.names[11]) == (90, "stop sign", UNUSED)
    assert (COCO.ids[-1], COCO.names[-1]) == (90, "toothbrush")
    assert COCO_PERSON.keypoint_names[COCO_PERSON.skeleton[0][0]] == "left_ankle"


def test_a_label_is_its_id_and_no_other_is_unused():
    assert COCO_BY_ID.ids == tuple(range(1, 91))
    used = [(i, name) for i, name in zip(COCO_BY_ID.ids, COCO_BY_ID.names, strict=True) if name != UNUSED]
    assert used == list(zip(COCO.ids, COCO.names, strict=True))


def test_they_are_those_of_cocos_files(shared):
    annotations = shared / "data" / "coco_mini" / "annotations"
    assert read_categories_file(annotations / "instances_val2017.json") == COCO
    assert read_categories_file(annotations / "person_keypoints_val2017.json") == COCO_PERSON
