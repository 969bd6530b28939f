import numpy as np
import pytest
from PIL import Image

from mrcnn_jax.rle import Rle

BOX = "<bndbox><xmin>3</xmin><ymin>2</ymin><xmax>10</xmax><ymax>5</ymax></bndbox>"


def thing(name, box=BOX, more=""):
    return f"<object><name>{name}</name>{more}{box}</object>"


def voc(*objects, name="a.jpg", database="Unknown", size=(20, 10)):
    width, height = size
    return (
        f"<annotation><filename>{name}</filename><source><database>{database}</database></source>"
        f"<size><width>{width}</width><height>{height}</height><depth>3</depth></size>"
        f"{''.join(objects)}</annotation>"
    )


def test_boxes_polygons_and_what_has_no_place(tmp_path, save, converted):
    save("data/a.jpg")
    triangle = "<polygon><x1>2</x1><y1>1</y1><x2>10</x2><y2>1</y2><x3>2</x3><y3>5</y3></polygon>"
    part = "<part><name>head</name><bndbox><xmin>1</xmin></bndbox></part>"
    xml = voc(thing("dog", more=f"<difficult>1</difficult>{part}"), thing("cat", more=triangle), size=(0, 0))
    save("data/a.xml", xml)
    builder, content, _ = converted(tmp_path / "data")
    dog, cat = content["annotations"]
    assert (dog["bbox"], dog["area"], dog["segmentation"]) == ([3, 2, 7, 3], 21, [])
    assert (cat["segmentation"], cat["area"]) == ([[2, 1, 10, 1, 2, 5]], 16)
    assert content["categories"] == [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}]
    assert builder.left_out == {"flags 'difficult': COCO's format has none; the objects are kept": 1}


def test_a_voc_dataset_with_masks_and_splits(tmp_path, save, converted):
    for name in ("a", "b", "c"):
        save(f"VOC/JPEGImages/{name}.jpg")
        save(
            f"VOC/Annotations/{name}.xml",
            voc(thing("dog"), thing("cat"), name=f"{name}.jpg", database="The VOC2007"),
        )
    save("VOC/ImageSets/Main/train.txt", "a\nb\n")
    save("VOC/ImageSets/Main/dog_train.txt", "c  1\nb -1\n")
    save("VOC/ImageSets/Segmentation/train.txt", "a\n")
    values = np.zeros((10, 20), np.uint8)
    values[1:5, 2:9] = 255  # the border
    values[2:4, 3:8] = 1
    mask = Image.fromarray(values, "P")
    mask.putpalette(list(range(256)) * 3)
    save("VOC/SegmentationObject/a.png", mask)
    _, content, _ = converted(tmp_path / "VOC", split="train")
    assert [item["file_name"] for item in content["images"]] == ["a.jpg"]
    dog, cat = content["annotations"]
    assert (Rle.from_json(dog["segmentation"]).decode() == (values == 1)).all()
    assert (dog["bbox"], dog["area"]) == ([3, 2, 5, 2], 10)
    # Pixels numbered from 1: the box begins one to the left, and ends behind the last.
    assert (cat["bbox"], cat["segmentation"]) == ([2, 1, 8, 4], [])
    for split, names in (("Main/train", ["a.jpg", "b.jpg"]), ("dog_train", ["c.jpg", "b.jpg"])):
        _, content, _ = converted(tmp_path / "VOC", split=split)
        assert [item["file_name"] for item in content["images"]] == names
    for source in ("VOC/Annotations/a.xml", "VOC/Annotations"):
        _, content, _ = converted(tmp_path / source)
        assert content["images"][0]["file_name"] == "a.jpg" and content["annotations"][0]["area"] == 10
    with pytest.raises(ValueError, match=r"--split=val: there is no .*ImageSets/val.txt, .*Main/val.txt"):
        converted(tmp_path / "VOC", split="val")
    with pytest.raises(ValueError, match="must be the name of a list"):
        converted(tmp_path / "VOC", split="../val")


def test_renamed_files_and_images_elsewhere(tmp_path, save, converted):
    save("data/a.jpg")
    save("data/a.xml", voc(thing("dog"), name="IMG_0001.jpg"))
    save("photos/b.png")
    save("boxes/b.xml", voc(thing("dog"), name="C:\\photos\\b.png"))
    _, content, _ = converted(tmp_path / "data")
    assert content["images"][0]["file_name"] == "a.jpg"
    _, content, _ = converted(tmp_path / "boxes", images=str(tmp_path / "photos"))
    assert content["images"][0]["file_name"] == "b.png"


def test_entities_are_refused(tmp_path, save, rules):
    save("data/a.jpg")
    bomb = '<!DOCTYPE a [<!ENTITY x "dog"><!ENTITY y SYSTEM "file:///etc/passwd">]>'
    save("data/a.xml", bomb + voc(thing("&x;")))
    assert rules(tmp_path / "data", format="voc") == ["a.xml: must not have a DOCTYPE"]


def test_all_problems_are_listed(tmp_path, save, rules):
    for name in ("a", "b", "e"):
        save(f"data/{name}.jpg")
    empty = BOX.replace("10", "3")
    save(
        "data/a.xml",
        voc(thing("dog", empty), thing(""), thing("dog", ""), thing("dog", BOX.replace("2", "x"))),
    )
    save("data/b.xml", voc(size=(10, 20), name="b.jpg"))
    save("data/c.xml", voc(name="../c.jpg"))
    save("data/d.xml", "<annotation>")
    save("data/e.xml", voc(thing("dog"), name="e.jpg"))
    far = np.zeros((10, 20), np.uint8)
    far[8:, 15:] = 1
    save("data/SegmentationObject/e.png", far)
    save("data/f.xml", "<html></html>")
    found = rules(tmp_path / "data")
    beginnings = (
        "a.xml: object[0]: <bndbox> must have xmin < xmax and ymin < ymax, got 3 2 3 5",
        "a.xml: object[1]: <name> is missing",
        "a.xml: object[2]: <bndbox> is missing",
        "a.xml: object[3]: <ymin> must be a number, got 'x'",
        "b.xml: image 'b.jpg' has 20 x 10 pixels (width x height), but was annotated at 10 x 20",
        "c.xml: image '../c.jpg': there is no such file in",
        "d.xml: not valid XML: no element found",
        "e.xml: object[0]: most pixels of value 1 in ",
        "f.xml: the root must be <annotation>, got <html>",
    )
    assert len(found) == len(beginnings)
    for rule, beginning in zip(found, beginnings, strict=True):
        assert rule.startswith(beginning), rule


def test_an_image_whose_masks_cannot_be_read_is_left_out(tmp_path, save, kept):
    for name in ("a", "b", "c"):
        save(f"data/{name}.jpg")
        save(f"data/{name}.xml", voc(thing("dog"), name=f"{name}.jpg"))
    save("data/SegmentationObject/a.png", "no image")
    save("data/SegmentationObject/b.png", np.zeros((5, 20), np.uint8))
    assert kept(tmp_path / "data") == (["c.jpg"], 1)
