import numpy as np
import pytest

from mrcnn_jax.data.coco import read_coco
from mrcnn_jax.data.keypoint_agreement import KeypointAgreement

BOX = (40.0, 20.0, 60.0, 60.0)


def judge(*points, strict=True):
    """What is found of objects 1, 2, ... of image 3, in ``BOX``, each with one keypoint."""
    agreement = KeypointAgreement("a.json")
    for number, (x, y) in enumerate(points, start=1):
        keypoints = np.array([(x, y, 2), (0, 0, 0)], np.float32)
        agreement.add(image_id=3, annotation_id=number, box=BOX, keypoints=keypoints)
    return agreement.judge(strict=strict)


def test_keypoints_that_fit():
    assert judge(*[(50, 40), (28, 40), (72, 40), (50, -2), (50, 82)] * 4) == []


@pytest.mark.parametrize("point", [(27, 40), (73, 40), (50, -3), (50, 83)])
def test_keypoints_far_outside_their_boxes(point):
    assert judge(point, point) == []  # too few to tell
    with pytest.raises(ValueError, match=r"^a\.json: keypoints lie outside of the box in 3 of 3 annotations"):
        judge(point, point, point)


def test_the_message_names_the_format_and_an_example():
    with pytest.raises(ValueError) as error:
        judge((50, 40), *[(0.5, 0.25)] * 9)
    text = (
        "keypoints lie outside of the box in 9 of 10 annotations: they look normalised to between 0 and 1, "
        "in place of pixels. Annotation 2 of image 3 has one at x 0.5, y 0.25; its box spans x 40 to 60 and "
        "y 20 to 60"
    )
    assert str(error.value) == f"a.json: {text}"
    (warning,) = judge((50, 40), *[(0.5, 0.25)] * 9, strict=False)
    assert warning.warning and warning.rule == text


@pytest.mark.parametrize(("apart", "count"), [(3, 30), (4, 30), (3, 6)])
def test_from_a_tenth_to_half_of_the_objects_are_a_warning(apart, count):
    findings = judge(*[(200, 40)] * apart, *[(50, 40)] * (count - apart))
    assert len(findings) == (apart > count / 10) and all(finding.warning for finding in findings)
    assert all("annotations. Annotation 1 of" in finding.rule for finding in findings)


def test_an_object_fits_by_any_keypoint_and_is_not_judged_without():
    agreement = KeypointAgreement("a.json")
    for number in range(5):
        keypoints = np.array([(500, 500, 1), (50, 40, 1)], np.float32)
        agreement.add(image_id=1, annotation_id=number, box=BOX, keypoints=keypoints)
        agreement.add(image_id=1, annotation_id=number, box=BOX, keypoints=keypoints * [1, 1, 0])
    assert agreement.judge(strict=True) == []


def test_keypoints_of_a_dataset(folder):
    image = folder.add_image()
    for _ in range(3):
        folder.add_object(image, keypoints=[0.2, 0.2, 2, 0.3, 0.3, 1, 0, 0, 0], bbox=[10, 4, 6, 4])
        folder.add_object(image, iscrowd=1)
    for item in folder.content["annotations"]:
        item["segmentation"] = []
    with pytest.raises(
        ValueError, match=r"instances\.json: keypoints lie outside .* 3 of 3 .* look normalised"
    ):
        read_coco(**folder.write())
    (finding,) = read_coco(**folder.write(), keypoint_rule="lenient").findings
    assert finding.warning and "3 of 3" in finding.rule
    assert read_coco(**folder.write(), keypoint_rule="skip").findings == ()
