import pytest


def lvis(**changes):
    url = "http://images.cocodataset.org/train2017/000000391895.jpg"
    content = {
        "info": {},
        "images": [
            {"id": 391895, "coco_url": url, "height": 10, "width": 20,
             "neg_category_ids": [5, 6], "not_exhaustive_category_ids": [7]},
            {"id": 7, "coco_url": url.replace("391895", "000007"), "height": 10, "width": 20,
             "neg_category_ids": [], "not_exhaustive_category_ids": []},
        ],
        "annotations": [
            {"id": 12, "image_id": 391895, "category_id": 1110, "bbox": [2.5, 1, 7, 4], "area": 15.5,
             "segmentation": [[2, 1, 10, 1, 2, 5]]},
        ],
        "categories": [
            {"id": 3, "name": "air_conditioner", "synset": "air_conditioner.n.01", "frequency": "f"},
            {"id": 1110, "name": "thing", "synset": "thing.n.01", "frequency": "r"},
        ],
    }  # fmt: skip
    return content | changes


def test_ids_boxes_and_polygons_are_kept(tmp_path, save, converted):
    save("coco/train2017/000000391895.jpg")
    save("coco/train2017/000000000007.jpg")
    path = save("coco/lvis_v1_train.json", lvis())
    builder, content, dataset = converted(path)
    assert content["images"] == [
        {"id": 391895, "file_name": "train2017/000000391895.jpg", "height": 10, "width": 20},
        {"id": 7, "file_name": "train2017/000000000007.jpg", "height": 10, "width": 20},
    ]
    assert content["annotations"] == [lvis()["annotations"][0] | {"iscrowd": 0}]
    assert content["categories"] == [{"id": 3, "name": "air_conditioner"}, {"id": 1110, "name": "thing"}]
    assert dataset.categories.ids == (3, 1110)
    assert builder.left_out == {
        "ids in 'neg_category_ids': COCO's format has no such field": 2,
        "ids in 'not_exhaustive_category_ids': COCO's format has no such field": 1,
    }
    _, content, _ = converted(path, images=str(tmp_path / "coco" / "train2017"))
    assert content["images"][0]["file_name"] == "000000391895.jpg"


def test_all_problems_are_listed(tmp_path, save, rules):
    save("coco/train2017/000000391895.jpg")
    good = lvis()["annotations"][0]
    annotations = [
        good,
        good | {"id": 13, "bbox": [1, 2]},
        good | {"id": 14, "category_id": 4},
        good | {"id": 15, "image_id": 8},
        good | {"id": 16, "segmentation": [[1, 2, 3]]},
        good | {"id": 17, "image_id": 7},  # of the missing image
    ]
    path = save("coco/lvis_v1_train.json", lvis(annotations=annotations))
    beginnings = (
        "lvis_v1_train.json: image 'train2017/000000000007.jpg': there is no such file in",
        "lvis_v1_train.json: annotations[1]: bbox must be [x, y, width, height]",
        "lvis_v1_train.json: annotations[2]: category_id 4 is not among the categories",
        "lvis_v1_train.json: annotations[3]: image_id 8 is not among the images",
        "lvis_v1_train.json: annotations[4]: segmentation must be polygons",
    )
    found = rules(path)
    assert len(found) == len(beginnings)
    for rule, beginning in zip(found, beginnings, strict=True):
        assert rule.startswith(beginning), rule
    with pytest.raises(ValueError, match="the section 'categories' is missing"):
        rules(save("coco/other.json", {}), format="lvis")
