import math

import numpy as np
import pytest

from mrcnn_jax.rle import Rle

POLYGON = {"name": "polygon", "all_points_x": [2, 10, 2], "all_points_y": [1, 1, 5]}


def region(shape, **attributes):
    return {"shape_attributes": shape, "region_attributes": attributes}


def image(name, *regions):
    return {"filename": name, "size": 123, "regions": list(regions), "file_attributes": {}}


def pixels(annotation):
    return Rle.from_json(annotation["segmentation"]).decode()


def test_an_export_of_version_2(tmp_path, save, converted):
    save("data/a.png")
    save("data/b.png")
    regions = [
        region(POLYGON, kind="balloon"),
        region({"name": "rect", "x": 3, "y": 2, "width": 4, "height": 5}, kind=" kite "),
        region({"name": "circle", "cx": 5, "cy": 5, "r": 2}, kind="balloon"),
        region({"name": "ellipse", "cx": 10, "cy": 5, "rx": 4, "ry": 1}, kind="balloon"),
        region(
            {"name": "ellipse", "cx": 10, "cy": 5, "rx": 4, "ry": 1, "theta": math.pi / 2}, kind="balloon"
        ),
        region({"name": "point", "cx": 5, "cy": 5}, kind="balloon"),
    ]
    via = save("data/via.json", {"a.png123": image("a.png", *regions), "b.png123": image("b.png")})
    builder, content, dataset = converted(via)
    assert [item["name"] for item in content["categories"]] == ["balloon", "kite"]
    polygon, rect, circle, wide, tall = content["annotations"]
    assert (polygon["bbox"], polygon["area"]) == ([2, 1, 8, 4], 16)
    assert polygon["segmentation"] == [[2, 1, 10, 1, 2, 5]]
    assert (rect["bbox"], rect["category_id"], rect["segmentation"]) == ([3, 2, 4, 5], 2, [])
    assert circle["area"] == 12
    # In the rows above and below y = 5, half a pixel away, the ellipse reaches 4 * sqrt(1 - 1/4) = 3.46.
    across = np.zeros((10, 20), bool)
    across[4:6, 7:13] = True
    assert (pixels(wide) == across).all()
    upright = np.zeros((10, 20), bool)
    upright[2:8, 9:11] = True
    assert (pixels(tall) == upright).all()
    assert builder.left_out == {"regions of shape 'point': they have no area": 1}
    assert [len(item.annotations) for item in dataset.images] == [5, 0]


def test_an_ellipse_turns_clockwise(tmp_path, save, converted):
    save("data/a.png")
    ellipse = {"name": "ellipse", "cx": 5, "cy": 5, "rx": 4, "ry": 0.8, "theta": math.pi / 4}
    _, content, _ = converted(save("data/via.json", {"a": image("a.png", region(ellipse, kind="leaf"))}))
    mask = pixels(content["annotations"][0])
    assert mask[3, 3] and mask[6, 6]  # from the upper left to the lower right
    assert not mask[3, 6] and not mask[6, 3]


def test_version_1_has_regions_by_number(tmp_path, save, converted):
    save("data/a.png")
    entry = image("a.png") | {
        "regions": {"0": region(POLYGON, type="dog")},
        "base64_img_data": "",
        "fileref": "",
    }
    _, content, _ = converted(save("data/via.json", {"a.png123": entry}))
    assert content["annotations"][0]["area"] == 16 and content["categories"] == [{"id": 1, "name": "dog"}]


def test_a_project_of_version_2_with_check_boxes_and_a_folder(tmp_path, save, converted):
    save("data/photos/a.png")
    project = {
        "_via_settings": {"core": {"default_filepath": "photos/"}},
        "_via_img_metadata": {"a.png123": image("a.png", region(POLYGON, kind={"dog": True, "cat": False}))},
        "_via_attributes": {"region": {"kind": {"type": "checkbox"}}, "file": {"caption": {}}},
    }
    _, content, _ = converted(save("data/via.json", project))
    assert content["images"][0]["file_name"] == "photos/a.png"
    assert content["categories"] == [{"id": 1, "name": "dog"}]


def test_a_path_comes_before_a_bare_name(tmp_path, save, converted):
    for name in ("photos/1.png", "photos/a/1.png", "photos/2.png"):
        save(name)
    entries = {name: image(name, region(POLYGON, kind="dog")) for name in ("a/1.png", "a/2.png")}
    _, content, _ = converted(save("via/via.json", entries), images=str(tmp_path / "photos"))
    assert [item["file_name"] for item in content["images"]] == ["a/1.png", "2.png"]


def test_options_of_version_2_are_called_by_their_descriptions(save, converted):
    save("data/a.png")
    regions = [region(POLYGON, kind=kind, size={"2": True, "3": False}) for kind in ("1", "2", "3")]
    options = {"1": "red balloon", "2": " ", "4": "kite"}
    kind = {"type": "dropdown", "description": "", "options": options, "default_options": {}}
    size = {"type": "checkbox", "options": {"2": "large", "3": ""}}
    project = {
        "_via_img_metadata": {"a.png123": image("a.png", *regions)},
        "_via_attributes": {"region": {"kind": kind, "size": size}, "file": {}},
    }
    via = save("data/via.json", project)
    _, content, _ = converted(via, via_attribute="kind")
    # "2" has no description, and there is no option "3".
    assert [item["name"] for item in content["categories"]] == ["2", "3", "red balloon"]
    assert [item["category_id"] for item in content["annotations"]] == [3, 1, 2]
    _, content, _ = converted(via, via_attribute="size")
    assert [item["name"] for item in content["categories"]] == ["large"]
    kind["type"] = "image"  # whose options are the addresses of pictures
    _, content, _ = converted(save("data/via.json", project), via_attribute="kind")
    assert [item["name"] for item in content["categories"]] == ["1", "2", "3"]


def test_a_folder_of_several_files(tmp_path, save, converted):
    for split in ("train", "val"):
        save(f"data/{split}/a.png")
        save(f"data/{split}/via.json", {"a": image("a.png", region(POLYGON, kind="dog"))})
    with pytest.raises(ValueError, match=r"has 2 files of the format via: train/via.json, val/via.json"):
        converted(tmp_path / "data")
    builder, _, _ = converted(tmp_path / "data" / "val")
    assert builder.images == tmp_path / "data" / "val"


def test_a_project_of_version_3(tmp_path, save, converted):
    save("data/a.png")
    save("data/b.png")
    metadata = {
        "1_a": {"vid": "1", "flg": 0, "z": [], "xy": [7, 2, 1, 10, 1, 2, 5], "av": {"1": "0"}},
        "1_b": {"vid": "1", "flg": 0, "z": [], "xy": [2, 3, 2, 4, 5], "av": {"1": "1", "3": "red"}},
        "1_c": {"vid": "1", "flg": 0, "z": [], "xy": [3, 5, 5, 2], "av": {"1": "0"}},
        "1_d": {"vid": "1", "flg": 0, "z": [], "xy": [8, 5, 1, 9, 4, 4, 8, 2, 3], "av": {"1": "1"}},
        "1_e": {"vid": "1", "flg": 0, "z": [], "xy": [1, 5, 5], "av": {"1": "0"}},
        "1_f": {"vid": "1", "flg": 0, "z": [], "xy": [], "av": {"2": "a caption"}},
    }
    options = {"0": "dog", "1": "cat"}
    project = {
        "project": {"pid": "p", "vid_list": ["1", "2", "3"]},
        "config": {},
        "attribute": {
            "1": {"aname": "kind", "anchor_id": "FILE1_Z0_XY1", "type": 4, "options": options},
            "2": {"aname": "caption", "anchor_id": "FILE1_Z0_XY0", "type": 1, "options": {}},
            "3": {"aname": "colour", "anchor_id": "FILE1_Z0_XY1", "type": 1, "options": {}},
        },
        "file": {
            "1": {"fid": "1", "fname": "a.png", "type": 2, "loc": 1, "src": ""},
            "2": {
                "fid": "2",
                "fname": "https://example.org/photos/b.png?x=1",
                "type": 2,
                "loc": 2,
                "src": "",
            },
            "3": {"fid": "3", "fname": "film.mp4", "type": 4, "loc": 1, "src": ""},
        },
        "view": {key: {"fid_list": [key]} for key in "123"},
        "metadata": metadata,
    }
    via = save("data/via.json", project)
    builder, content, _ = converted(via, via_attribute="kind")
    assert [(item["bbox"], item["category_id"]) for item in content["annotations"]] == [
        ([2, 1, 8, 4], 2), ([3, 2, 4, 5], 1), ([3, 3, 4, 4], 2), ([2, 1, 7, 7], 1),
    ]  # fmt: skip
    assert [item["name"] for item in content["categories"]] == ["cat", "dog"]
    assert [item["file_name"] for item in content["images"]] == ["a.png", "b.png"]
    assert builder.left_out == {"regions of shape 'point': they have no area": 1}
    with pytest.raises(ValueError, match="which are: kind, colour; --via_attribute=NAME says which"):
        converted(via)
    with pytest.raises(ValueError, match="--via_attribute=type: the region attributes are kind, colour"):
        converted(via, via_attribute="type")


def test_regions_without_attributes(save, converted):
    save("data/a.png")
    via = save("data/via.json", {"a": image("a.png", region(POLYGON))})
    with pytest.raises(ValueError, match="which are: none; --category=NAME gives all objects one category"):
        converted(via)
    _, content, _ = converted(via, category="balloon")
    assert content["categories"] == [{"id": 1, "name": "balloon"}] and len(content["annotations"]) == 1
    with pytest.raises(ValueError, match="--category and --via_attribute exclude each other"):
        converted(via, category="balloon", via_attribute="kind")


def test_all_problems_are_listed(tmp_path, save, rules):
    save("data/a.png")
    regions = [
        region(POLYGON, kind="dog"),
        region(POLYGON, kind=""),
        region(POLYGON, kind={"dog": True, "cat": True}),
        region(POLYGON | {"all_points_x": [1, 2]}, kind="dog"),
        region({"name": "rect", "x": 1, "y": 1, "width": "3", "height": 3}, kind="dog"),
        region({"name": "blob"}, kind="dog"),
        region({"name": "circle", "cx": 5, "cy": 5, "r": 0}, kind="dog"),
    ]
    via = save("data/via.json", {"a": image("a.png", *regions), "b": image("../b.png"), "c": image(3)})
    beginnings = (
        "via.json: a.png: regions[1]: attribute 'kind' must be the name of a category, got ''",
        "via.json: a.png: regions[2]: attribute 'kind' must be one category, got ['dog', 'cat']",
        "via.json: a.png: regions[3]: all_points_x and all_points_y must be lists of as many numbers",
        "via.json: a.png: regions[4]: x, y, width, height of a rect must be numbers",
        "via.json: a.png: regions[5]: the shape must be rect, circle, ellipse",
        "via.json: a.png: regions[6]: the radii of a circle or an ellipse must be positive",
        "via.json: image '../b.png': there is no such file in",
        "via.json: entry 'c': filename must be a string, got 3",
    )
    found = rules(via)
    assert len(found) == len(beginnings)
    for rule, beginning in zip(found, beginnings, strict=True):
        assert rule.startswith(beginning), rule
    with pytest.raises(ValueError, match="entry 'a': VIA's images have a 'filename' and 'regions'"):
        rules(save("data/other.json", {"a": 1}), format="via")
