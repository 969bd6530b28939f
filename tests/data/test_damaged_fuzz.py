"""Randomly damaged datasets are either rejected with the reason or train correctly."""

import copy
import json
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from mrcnn_jax.data.findings import as_table, errors
from mrcnn_jax.data.open_data_source import open_data_source
from tests.data.conftest import CocoFolder
from tests.data.examples import check_examples, config_of

NUMBERS = st.one_of(
    st.integers(-3, 25),
    st.sampled_from([2**31, 2**63, -(2**63), 2**70, 10**400, 0.5, -0.0, 1e-320, 1e9, 1e300]),
    st.floats(),
)
VALUES = st.one_of(
    st.none(),
    st.booleans(),
    NUMBERS,
    st.text(max_size=4),
    st.sampled_from(["1.png", "2.JPG", "..", "../1.png", "/", ".", "\ud800", "a\0b", "0PYn1"]),
    st.lists(NUMBERS, max_size=9),
    st.lists(st.lists(NUMBERS, max_size=8), max_size=2),
    st.dictionaries(st.sampled_from(["id", "size", "counts", "name"]), NUMBERS, max_size=2),
)


@st.composite
def damages(draw):
    """Changes to the JSON content, and to the bytes of the JSON file (number 0) and image files (1 to 3)."""
    place = st.floats(0, 1, exclude_max=True)
    changes = st.tuples(st.sampled_from(["replace", "delete", "copy"]), place, VALUES)
    bytes_ = st.tuples(
        st.sampled_from([0, 1, 1, 2, 2, 3, 3]), st.sampled_from(["cut", "flip"]), place, st.integers(1, 255)
    )
    return draw(st.lists(changes, max_size=4)), draw(st.lists(bytes_, max_size=2))


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The folder of a valid dataset with a PNG, a JPEG and a GIF."""
    folder = CocoFolder(tmp_path_factory.mktemp("whole"))
    folder.content["categories"] = copy.deepcopy(folder.content["categories"])
    for name in ("1.png", "2.jpg"):
        image = folder.add_image(name=name)
        folder.add_object(image)
        folder.add_object(image, category_id=3, keypoints=[], segmentation=[[2, 1, 9, 1, 9, 5], [1, 1]])
    image = folder.add_image(Image.fromarray(np.arange(200, dtype=np.uint8).reshape(10, 20)), name="3.gif")
    rle = {"size": [10, 20], "counts": [50, 100, 50]}
    folder.add_object(image, segmentation=rle, bbox=[5, 0, 10, 10])
    folder.add_object(image, segmentation=rle, iscrowd=1, keypoints=[0] * 9)
    assert check_examples(open_data_source(config_of(folder)), config_of(folder)) == 3
    return folder


def places(value):
    """All (container, key) pairs of the lists and dicts nested in a value."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    found = []
    for key, item in items:
        found += [(value, key), *places(item)]
    return found


def apply(folder, changes, bytes_):
    for kind, place, value in changes:
        every = places(folder.content)
        if not every:
            continue
        holder, key = every[int(place * len(every))]
        if kind == "replace":
            holder[key] = value
        elif kind == "delete":
            del holder[key]
        elif isinstance(holder, list):
            holder.append(copy.deepcopy(holder[key]))
    config = config_of(folder, skip_bad=True)
    files = [folder.root / "instances.json", *sorted((folder.root / "images").iterdir())]
    for number, kind, place, value in bytes_:
        data = bytearray(files[number].read_bytes())
        if data and kind == "cut":
            del data[int(place * len(data)) :]
        elif data:
            data[int(place * len(data))] ^= value
        files[number].write_bytes(data)
    return config


def damaged(examples):
    """Gives a test as many ``damage`` arguments."""
    health = [HealthCheck.too_slow, HealthCheck.data_too_large]
    chosen = settings(max_examples=examples, derandomize=True, deadline=None, suppress_health_check=health)
    return lambda test: chosen(given(damage=damages())(test))


# Pillow warns about odd images that it can still read.
@pytest.mark.filterwarnings("ignore")
@damaged(40)
def test_random_damage_is_found_or_harmless(whole, damage):
    check(whole, damage)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@damaged(400)
def test_much_random_damage_is_found_or_harmless(whole, damage):
    check(whole, damage)


def check(whole, damage):
    with tempfile.TemporaryDirectory() as root:
        folder = CocoFolder(Path(root))
        for path in (whole.root / "images").iterdir():
            (folder.root / "images" / path.name).write_bytes(path.read_bytes())
        folder.content = json.loads((whole.root / "instances.json").read_text())
        config = apply(folder, *damage)

        source = None
        try:
            source = open_data_source(config)
            check_examples(source, config)
        except ValueError as error:
            assert str(folder.root / "instances.json") in str(error)
        config.data.skip_bad = False
        try:
            check_examples(open_data_source(config), config)
        except ValueError as error:
            assert str(folder.root / "instances.json") in str(error)
            if source is not None and errors(source.findings):
                assert str(error).endswith(as_table(source.findings))
        else:
            assert not errors(source.findings)
