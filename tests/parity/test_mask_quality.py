import pytest
from pycocotools.coco import COCO

from mrcnn_jax.data.coco import read_coco
from tests.data.conftest import CocoFolder
from tests.parity.mask_quality import measure, quietly


def test_rectangles_by_hand_and_a_triangle_on_two_grids(tmp_path):
    folder = CocoFolder(tmp_path)
    image = folder.add_image(size=(200, 300))
    folder.add_object(
        image, bbox=[10, 20, 64, 40], area=2560, segmentation=[[10, 20, 74, 20, 74, 60, 10, 60]]
    )
    folder.add_object(
        image, bbox=[90, 0, 100, 100], area=1e4, segmentation=[[90, 0, 190, 0, 190, 100, 90, 100]]
    )
    folder.add_object(image, iscrowd=1, segmentation={"size": [200, 300], "counts": [60000]})
    where = folder.write()
    truth = quietly(COCO, str(where["root"] / where["annotations"]))
    found = measure(list(read_coco(**where).images), truth, 28)
    assert found["count"] == {"small": 0, "medium": 1, "large": 1, "all": 2}
    # With cells 3.6 pixels wide, the bilinear map is (1 - 0.36)**2 < 0.5 at the centres of the corner pixels.
    assert found["iou"] == pytest.approx({"medium": 100, "large": 99.96, "all": 99.98})
    assert found["ap"]["all"] == pytest.approx(100)
    assert measure(list(read_coco(**where).images), truth, 0)["iou"]["all"] == 100

    folder.add_object(image, bbox=[0, 100, 90, 90], area=4050, segmentation=[[0, 100, 90, 100, 0, 190]])
    truth = quietly(COCO, str(folder.write()["root"] / where["annotations"]))
    coarse, fine = (measure(list(read_coco(**where).images), truth, grid)["iou"]["all"] for grid in (4, 112))
    assert coarse < 98 < fine < 100
