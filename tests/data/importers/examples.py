"""One correct document of each format, for an image a.png of 20 x 10 pixels."""

_TRIANGLE = [[2, 1], [10, 1], [2, 5]]
_POLYGON = {"name": "polygon", "all_points_x": [2, 10, 2], "all_points_y": [1, 1, 5]}
_PNG = (  # one white pixel
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGP4DwABAQEAsTj2TgAAAABJRU5ErkJggg=="
)
_SHAPES = (
    {"label": "dog", "points": _TRIANGLE, "shape_type": "polygon", "group_id": 1},
    {"label": "dog", "points": [[2, 1], [10, 5]], "shape_type": "rectangle", "group_id": 1},
    {"label": "cat", "points": [[5, 5], [5, 7]], "shape_type": "circle", "group_id": None},
    {"label": "cat", "points": [[3, 3], [3, 3]], "shape_type": "mask", "mask": _PNG},
)
_VIA_SHAPES = (
    _POLYGON,
    {"name": "rect", "x": 3, "y": 2, "width": 4, "height": 5},
    {"name": "circle", "cx": 5, "cy": 5, "r": 2},
    {"name": "ellipse", "cx": 10, "cy": 5, "rx": 4, "ry": 1, "theta": 0.5},
)
_REGIONS = [{"shape_attributes": shape, "region_attributes": {"kind": "dog"}} for shape in _VIA_SHAPES]

# By format (and version): the file's name, its content, options.
DOCUMENTS = {
    "labelme": (
        "a.json",
        {"shapes": list(_SHAPES), "imagePath": "a.png", "imageHeight": 10, "imageWidth": 20},
        {},
    ),
    "via 2": (
        "via.json",
        {
            "_via_settings": {"core": {"default_filepath": ""}},
            "_via_img_metadata": {"a": {"filename": "a.png", "regions": _REGIONS}},
            "_via_attributes": {"region": {"kind": {}}},
        },
        {},
    ),
    "via 3": (
        "via.json",
        {
            "attribute": {"1": {"aname": "kind", "anchor_id": "FILE1_Z0_XY1", "options": {"0": "dog"}}},
            "file": {"1": {"fname": "a.png", "type": 2}},
            "view": {"1": {"fid_list": ["1"]}},
            "metadata": {
                "a": {"vid": "1", "z": [], "xy": [7, 2, 1, 10, 1, 2, 5], "av": {"1": "0"}},
                "b": {"vid": "1", "z": [], "xy": [3, 5, 5, 2], "av": {"1": "0"}},
            },
        },
        {},
    ),
}  # fmt: skip

_XML = (
    "<annotation><filename>a.png</filename><size><width>20</width><height>10</height></size><object>"
    "<name>dog</name><bndbox><xmin>3</xmin><ymin>2</ymin><xmax>10</xmax><ymax>5</ymax></bndbox>"
    "<polygon><x1>2</x1><y1>1</y1><x2>10</x2><y2>1</y2><x3>2</x3><y3>5</y3></polygon></object></annotation>"
)
_YOLO = {
    "data.yaml": "path: .\ntrain: images\nval: [images, images]\nnames: {0: dog, 1: c}\nkpt_shape: [2, 3]\n",
    "labels/a.txt": "0 0.1 0.1 0.5 0.1 0.1 0.5\n1 0.25 0.5 0.2 0.4\n",
}

# By format (and file that is changed): files, the one that is changed, options.
TEXTS = {
    "voc": ({"a.xml": _XML}, "a.xml", {}),
    "yolo data.yaml": (_YOLO, "data.yaml", {"split": "train"}),
    "yolo labels": (_YOLO, "labels/a.txt", {"split": "train"}),
}
