import pytest

from mrcnn_jax.data.importers.via_csv import is_via_csv

# As VIA 2 writes it: names are not quoted, JSON has doubled quotes, an image without regions has a line.
HEADER = "filename,file_size,file_attributes,region_count,region_id,region_shape_attributes,region_attributes"
TRIANGLE = '"{""name"":""polygon"",""all_points_x"":[2,10,2],""all_points_y"":[1,1,5]}"'
RECT = '"{""name"":""rect"",""x"":3,""y"":2,""width"":4,""height"":5}"'
EXPORT = "\n".join(
    [
        HEADER,
        f'a, 1.png,123,"{{}}",2,0,{TRIANGLE},"{{""kind"":""dog""}}"',
        f'a, 1.png,123,"{{}}",2,1,{RECT},"{{""kind"":""cat, red""}}"',
        'b.png,5,"{}",0,0,"{}","{}"',
    ]
)


@pytest.mark.parametrize("source", ["data", "data/via_export_csv.csv"])
def test_an_export_of_version_2(tmp_path, save, converted, source):
    save("data/a, 1.png")
    save("data/b.png")
    save("data/via_export_csv.csv", EXPORT)
    _, content, _ = converted(tmp_path / source)
    assert [image["file_name"] for image in content["images"]] == ["a, 1.png", "b.png"]
    assert [item["name"] for item in content["categories"]] == ["cat, red", "dog"]
    polygon, rect = content["annotations"]
    assert (polygon["image_id"], polygon["category_id"], polygon["bbox"]) == (1, 2, [2, 1, 8, 4])
    assert polygon["segmentation"] == [[2, 1, 10, 1, 2, 5]]
    assert (rect["image_id"], rect["category_id"], rect["bbox"]) == (1, 1, [3, 2, 4, 5])


def test_version_1_and_spreadsheet_programs(tmp_path, save, converted):
    save("data/a.png")
    line = f'a.png,123,"{{}}",1,0,{TRIANGLE},"{{""kind"":""dog""}}"'
    _, content, _ = converted(save("data/a.csv", f"#{HEADER}\r\n{line}\r\n\r\n"))
    assert content["annotations"][0]["area"] == 16
    saved = f'a.png;123;{{}};1;0;{TRIANGLE};"{{""kind"":""dog""}}"'
    _, again, _ = converted(save("data/a.csv", "\ufeff" + HEADER.replace(",", ";") + f"\r\n{saved}\r\n"))
    assert again == content


def test_other_tables_are_none():
    assert is_via_csv(HEADER) and is_via_csv(f"#{HEADER}\r\na")
    assert not is_via_csv("filename,width,height,class,xmin,ymin,xmax,ymax\n")
    assert not is_via_csv("")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "the first line must be VIA's: filename,file_size"),
        (f"{HEADER}\na.png,1,2\n", "line 2: must have 7 columns, got 3"),
        (f'{HEADER}\n\na.png,1,"{{}}",1,0,"{{","{{}}"\n', "line 3: Expecting property name"),
        (f'{HEADER}\na.png,1,"{{}}",1,0,"{{}}","{{}}\n', "line 2: unexpected end of data"),
    ],
)
def test_damaged_files(save, rules, text, message):
    path = save("a.csv", text)
    with pytest.raises(ValueError, match=f"a.csv: {message}"):
        rules(path, format="via")
