import base64
import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from mrcnn_jax.data.importers.convert import Options, convert
from mrcnn_jax.rle import Rle


def shape(label, points, kind="polygon", **changes):
    entry = {"label": label, "points": points, "shape_type": kind, "group_id": None, "flags": {}}
    return entry | changes


def labelme(*shapes, **changes):
    entry = {
        "version": "5.5.0",
        "flags": {},
        "shapes": list(shapes),
        "imagePath": "a.png",
        "imageData": None,
        "imageHeight": 10,
        "imageWidth": 20,
    }
    return entry | changes


def png(pixels):
    stream = io.BytesIO()
    Image.fromarray(pixels.astype(np.uint8) * 255).save(stream, "PNG")
    return base64.b64encode(stream.getvalue()).decode()


def test_polygons_rectangles_circles_and_masks(tmp_path, save, converted):
    save("data/a.png")
    crop = np.array([[1, 0, 1], [0, 1, 1]], bool)
    save(
        "data/a.json",
        labelme(
            shape("dog", [[2, 1], [10, 1], [2, 5]]),
            shape("car", [[12, 8.5], [15.5, 4]], "rectangle"),
            shape("ball", [[5, 5], [5, 7]], "circle"),
            shape("cat", [[4, 3], [6, 4]], "mask", mask=png(crop)),
            shape("dog", [[3, 3]], "point"),
            shape("dog", [[3, 3], [4, 4]], "line"),
            shape("__ignore__", [[0, 0], [9, 0], [9, 9]]),
        ),
    )
    builder, content, dataset = converted(tmp_path / "data")
    assert content["images"] == [{"id": 1, "file_name": "a.png", "height": 10, "width": 20}]
    assert [item["name"] for item in content["categories"]] == ["ball", "car", "cat", "dog"]  # by name
    dog, car, ball, cat = content["annotations"]
    assert dog == {
        "id": 1, "image_id": 1, "category_id": 4, "iscrowd": 0, "bbox": [2, 1, 8, 4], "area": 16,
        "segmentation": [[2, 1, 10, 1, 2, 5]],
    }  # fmt: skip
    assert (car["bbox"], car["area"], car["segmentation"]) == ([12, 4, 3.5, 4.5], 15.75, [])
    # Of a circle with centre 5 5 and radius 2: in the rows 3 and 6 two pixels, in the rows 4 and 5 four.
    disk = np.zeros((10, 20), bool)
    disk[3:7, 4:6] = disk[4:6, 3:7] = True
    assert (Rle.from_json(ball["segmentation"]).decode() == disk).all()
    assert (ball["bbox"], ball["area"]) == ([3, 3, 4, 4], 12)
    mask = np.zeros((10, 20), bool)
    mask[3:5, 4:7] = crop
    assert (Rle.from_json(cat["segmentation"]).decode() == mask).all()
    assert (cat["bbox"], cat["area"]) == ([4, 3, 3, 2], 4)
    assert builder.left_out == {
        "shapes of type 'point': they have no area": 1,
        "shapes of type 'line': they have no area": 1,
        "shapes labelled '__ignore__': labelme's word for no object": 1,
    }
    assert [item.segmentation is None for item in dataset.images[0].annotations] == [
        False,
        True,
        False,
        False,
    ]


@pytest.mark.parametrize(
    ("points", "left", "top"),
    [
        ([[4.3, 3.3], [6.3, 4.3]], 4, 3),  # moved by the mouse
        ([[4.5, 3.5], [6.5, 4.5]], 4, 4),  # halves go to even numbers, so here the corners are 3 apart
        ([[17, 8], [20, 10]], 17, 8),  # labelme 5 at the lower right edge of the image
        ([[18, 9], [20, 10]], 18, 9),  # partly outside, with canvas.allow_out_of_bounds_points
        ([[-1, -1], [1, 0]], -1, -1),
    ],
)
def test_masks_are_placed_as_labelme_does(tmp_path, save, converted, points, left, top):
    save("data/a.png")
    crop = np.array([[1, 0, 1], [0, 1, 1]], bool)
    save("data/a.json", labelme(shape("cat", points, "mask", mask=png(crop))))
    _, content, _ = converted(tmp_path / "data")
    padded = np.zeros((30, 40), bool)  # the image, with ten pixels around it
    padded[10 + top : 12 + top, 10 + left : 13 + left] = crop
    mask = Rle.from_json(content["annotations"][0]["segmentation"]).decode()
    assert (mask == padded[10:20, 10:30]).all()


def test_whole_corners_cut_a_mask(tmp_path, save, converted):
    save("data/a.png")
    save("data/a.json", labelme(shape("cat", [[4, 3], [5, 4]], "mask", mask=png(np.ones((3, 3))))))
    _, content, _ = converted(tmp_path / "data")
    assert (content["annotations"][0]["bbox"], content["annotations"][0]["area"]) == ([4, 3, 2, 2], 4)


def test_shapes_of_a_group_are_one_object(tmp_path, save, converted):
    save("data/a.png")
    squares = [
        [[0, 0], [2, 0], [2, 2], [0, 2]],
        [[1, 1], [3, 1], [3, 3], [1, 3]],
        [[6, 6], [8, 6], [8, 8], [6, 8]],
    ]
    save(
        "data/a.json",
        labelme(
            *(shape("dog", points, group_id=3) for points in squares),
            shape("cat", squares[0], group_id=3),
            shape("cat", squares[1]),
            shape("cat", squares[0], group_id=4),
            shape("cat", [[5, 0], [5, 0]], "mask", group_id=4, mask=png(np.ones((1, 1)))),
        ),
    )
    _, content, _ = converted(tmp_path / "data")
    dog, cat, other, joined = content["annotations"]
    assert dog["segmentation"] == [np.ravel(points).tolist() for points in squares]
    assert (dog["bbox"], dog["area"]) == ([0, 0, 8, 8], 11)  # two of the squares share a pixel
    assert [cat["area"], other["area"]] == [4, 4]
    pixels = np.zeros((10, 20), bool)
    pixels[:2, :2] = pixels[0, 5] = True
    assert (Rle.from_json(joined["segmentation"]).decode() == pixels).all() and joined["bbox"] == [0, 0, 6, 2]


def test_images_are_found_by_the_path_in_the_file_and_else_in_the_given_folder(tmp_path, save, converted):
    triangle = shape("dog", [[2, 1], [10, 1], [2, 5]])
    save("images/sub/a.png")
    save("images/b.png")
    save("data/sub/a.json", labelme(triangle, imagePath="..\\..\\images\\sub\\a.png"))
    save("data/b.json", labelme(triangle, imagePath="C:\\photos\\b.png"))
    _, content, _ = converted(tmp_path / "data", images=str(tmp_path / "images"))
    assert [image["file_name"] for image in content["images"]] == ["b.png", "sub/a.png"]


def test_sizes_are_those_of_the_upright_image(tmp_path, save, converted, rules):
    exif = Image.Exif()
    exif[0x0112] = 6  # rotated by a quarter: 10 wide and 20 high when upright
    save("data/a.jpg", exif=exif)
    tall = shape("dog", [[1, 2], [5, 2], [1, 18]])
    save("data/a.json", labelme(tall, imagePath="a.jpg", imageHeight=20, imageWidth=10))
    _, content, _ = converted(tmp_path / "data")
    assert (content["images"][0]["height"], content["images"][0]["width"]) == (20, 10)
    save("data/a.json", labelme(tall, imagePath="a.jpg"))
    assert rules(tmp_path / "data") == [
        "a.json: image 'a.jpg' has 10 x 20 pixels (width x height), but was annotated at 20 x 10; it was "
        "annotated without its EXIF rotation"
    ]


def test_all_problems_are_listed(tmp_path, save, rules):
    save("data/a.png")
    save("outside.png")
    save(
        "data/a.json",
        labelme(
            shape("dog", [[2, 1], [10, 1]]),
            shape("", [[2, 1], [10, 1], [2, 5]]),
            shape("dog", [[2, 1], [4, 2], [6, 3]]),
            shape("dog", [[2, 1], [10, 1], [2, float("nan")]]),
            shape("dog", [[2, 1], [2, 5]], "rectangle"),
            shape("dog", [[30, 1], [40, 1], [30, 5]]),
            shape("dog", [[2, 1], [10, 1], [2, 5]], "star"),
            shape("dog", [[0, 0], [1, 1]], "mask", mask="!"),
            shape("dog", [[0, 0], [2, 2]], "mask", mask=png(np.ones((1, 1)))),
            shape("dog", [[20, 9], [21, 9]], "mask", mask=png(np.ones((1, 2)))),
            5,
        ),
    )
    save("data/b.json", labelme(imagePath="../outside.png"))
    save("data/c.json", labelme())
    save("data/d.json", '{"shapes": ')
    found = rules(tmp_path / "data")
    beginnings = (
        "a.json: shapes[0]: a polygon must have at least 3 points, got 2",
        "a.json: shapes[1]: label must be a string",
        "a.json: shapes[2]: the 3 points of a polygon must not lie on one line",
        "a.json: shapes[3]: points must be a list of points [x, y]",
        "a.json: shapes[4]: a rectangle must have an area, got 2 1 to 2 5",
        "a.json: shapes[6]: shape_type must be polygon, rectangle, circle",
        "a.json: shapes[7]: mask cannot be decoded",
        "a.json: shapes[8]: points must be corners of the mask of 1 x 1 pixels",
        "a.json: shapes[9]: the mask has no pixel inside the image of 20 x 10 pixels",
        "a.json: shapes[10]: it must be an object, got 5",
        "a.json: shapes[5]: lies outside the image of 20 x 10 pixels",
        "b.json: image '../outside.png': there is no such file in",
        "c.json: image 'a.png' is described more than once",
        "d.json: not valid JSON",
    )
    assert len(found) == len(beginnings)
    for rule, beginning in zip(found, beginnings, strict=True):
        assert rule.startswith(beginning), rule


def test_a_mask_that_claims_to_be_huge(tmp_path, save, rules):
    save("data/a.png")
    chunk = b"IHDR" + struct.pack(">IIBBBBB", 50_000, 50_000, 8, 0, 0, 0, 0)
    header = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + chunk + struct.pack(">I", zlib.crc32(chunk))
    mask = base64.b64encode(header + struct.pack(">I", 0) + b"IDAT").decode()
    save("data/a.json", labelme(shape("dog", [[0, 0], [1, 1]], "mask", mask=mask)))
    (rule,) = rules(tmp_path / "data")
    assert rule.startswith(
        "a.json: shapes[0]: mask cannot be decoded: Image size (2500000000 pixels) exceeds"
    )


def test_images_without_a_file_are_counted(tmp_path, save):
    for name in ("a.png", "b.png", "sub/c.png", ".hidden.png"):
        save(f"data/{name}")
    save("data/a.json", labelme(shape("dog", [[2, 1], [10, 1], [2, 5]])))
    save("data/wrong.json", labelme(imagePath="b.png", imageWidth=99))
    builder = convert(tmp_path / "data", Options())
    assert builder.left_out == {"images without a JSON file: they may have objects": 1}
    assert len(builder.findings) == 1
    assert convert(tmp_path / "data" / "a.json", Options(format="labelme")).left_out == {}


def test_one_file(tmp_path, save, converted):
    for name in ("a", "b"):
        save(f"data/{name}.png")
        path = save(
            f"data/{name}.json", labelme(shape("dog", [[2, 1], [10, 1], [2, 5]]), imagePath=f"{name}.png")
        )
    _, content, _ = converted(path)
    assert [image["file_name"] for image in content["images"]] == ["b.png"]


def test_a_folder_without_labelme_files(tmp_path, save, rules):
    save("data/a.json", {"images": []})
    with pytest.raises(ValueError, match="there is no labelme file"):
        rules(tmp_path / "data", format="labelme")


def test_points_in_an_objects_group_are_its_keypoints(tmp_path, save, converted):
    save("data/a.png")
    save(
        "data/a.json",
        labelme(
            shape("tail", [[9, 2]], "point", group_id=4),
            shape("dog", [[2, 1], [10, 1], [2, 5]], group_id=4),
            shape("nose", [[3.5, 2]], "point", group_id=4),
            shape("dog", [[2, 6], [10, 6], [2, 9]], group_id=5),
            shape("tail", [[2, 7]], "point", group_id=5),
            *(shape("nose", [[x, 6]], "point", group_id=5) for x in (3, 4)),  # which one?
            shape("cat", [[12, 1], [18, 5]], "rectangle", group_id=6),
            shape("hat", [[13, 1], [14, 2]], "rectangle", group_id=6),
            shape("nose", [[13, 2]], "point", group_id=6),  # whose?
            shape("nose", [[13, 2]], "point", group_id=7),
            shape("ear", [[2, -3]], "point", group_id=5),
            shape("nose", [[13, 2]], "point"),
        ),
    )
    builder, content, _ = converted(tmp_path / "data")
    assert [entry.get("keypoints") for entry in content["annotations"]] == [
        [9, 2, 2, 3.5, 2, 2],
        [2, 7, 2, 0, 0, 0],
        None,
        None,
    ]
    assert [entry["num_keypoints"] for entry in content["annotations"][:2]] == [2, 1]
    assert [entry.get("keypoints") for entry in content["categories"]] == [None, ["tail", "nose"], None]
    assert builder.left_out == {
        "points in groups: not of one object, not the only one of their label, or not in the image": 5,
        "shapes of type 'point': they have no area": 1,
    }
