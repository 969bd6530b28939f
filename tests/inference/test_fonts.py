import importlib.util
import shutil
import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from mrcnn_jax.inference import fonts
from mrcnn_jax.inference.draw import draw
from mrcnn_jax.inference.font_tables import read_characters
from mrcnn_jax.inference.results import Result
from mrcnn_jax.runs.categories import Categories


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder of a system's only fonts: one of Latin, Greek and Cyrillic, bold and plain."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.setenv("XDG_DATA_DIRS", str(tmp_path / "none"))
    folder = tmp_path / "data" / "fonts" / "plex"
    folder.mkdir(parents=True)
    spec = importlib.util.find_spec("hotcoco")
    assert spec is not None and spec.origin is not None
    for style in ("Regular", "SemiBold"):
        shutil.copy(Path(spec.origin).parent / "_fonts" / f"IBMPlexSans-{style}.ttf", folder)
    (folder / "A damaged font.ttf").write_bytes(b"no font")
    (folder / "LastResort.otf").write_bytes(b"has every character, as a box")
    fonts._installed.cache_clear()
    yield folder
    fonts._installed.cache_clear()


def split(text: str) -> list[tuple[str, str]]:
    return [(run.text, " ".join(map(str, run.font.getname()))) for run in fonts.split_by_font(text, 20.0)]


def test_latin_is_in_pillows_font() -> None:
    assert split("traffic light 0.98") == [("traffic light 0.98", "Aileron Regular")]
    assert split("") == [] and split("  ") == [("  ", "Aileron Regular")]


def test_other_scripts_are_in_a_plain_font_of_the_system(installed: Path) -> None:
    assert [file.name for file in fonts._installed()] == [
        "A damaged font.ttf",
        "IBMPlexSans-Regular.ttf",
        "IBMPlexSans-SemiBold.ttf",
    ]
    parts = [("рыжая кошка", "IBM Plex Sans Regular"), (" 0.98", "Aileron Regular")]
    assert split("рыжая кошка 0.98") == parts
    assert split("кошка\ufe0f") == [("кошка\ufe0f", "IBM Plex Sans Regular")]


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("猫 0.98", r"\u732b 0.98"),
        ("a猫", r"a\u732b"),
        ("\N{CAT FACE}", r"\U0001f431"),
        ("caf\udce9", r"caf\udce9"),
        ("a\nb\x1b[2J", r"a\nb\x1b[2J"),
        ("x" * 101, "x" * 97 + "..."),
    ],
)
def test_what_no_font_has_is_escaped(installed: Path, text: str, shown: str) -> None:
    assert split(text) == [(shown, "Aileron Regular")]


def test_labels_of_any_name_are_drawn_without_boxes_for_glyphs(installed: Path) -> None:
    def picture(name: str) -> np.ndarray:
        result = Result(
            boxes=np.array([[10, 50, 90, 80]], np.float32),
            scores=np.array([0.5], np.float32),
            labels=np.array([1], np.int32),
            image_size=(100, 640),
            categories=Categories(ids=(1,), names=(name,)),
        )
        return draw(np.zeros((100, 640, 3), np.uint8), result)

    np.testing.assert_array_equal(picture("猫"), picture(r"\u732b"))
    np.testing.assert_array_equal(picture("a\nb"), picture(r"a\nb"))
    assert (picture("кошка") != picture("мышка")).any()
    assert (picture("кошка") != picture(r"\u043a\u043e\u0448\u043a\u0430")).any()


def font_of(*subtables: tuple[int, int, bytes], **tables: bytes) -> bytes:
    """A font with a cmap of these subtables (platform, encoding, content), and with other tables."""
    cmap, offset = struct.pack(">HH", 0, len(subtables)), 4 + 8 * len(subtables)
    for platform, encoding, content in subtables:
        cmap += struct.pack(">HHI", platform, encoding, offset)
        offset += len(content)
    cmap += b"".join(content for _, _, content in subtables)
    entries = {"cmap": cmap, **tables}
    head, offset = struct.pack(">IHHHH", 0x00010000, len(entries), 0, 0, 0), 12 + 16 * len(entries)
    for tag, content in entries.items():
        head += struct.pack(">4sIII", tag.encode(), 0, offset, len(content))
        offset += len(content)
    return head + b"".join(entries.values())


# Segments 65 to 67 (glyphs 1 to 3), 97 to 98 (glyphs in an array: 0, which is none, and 5), and the end.
SEGMENTS = struct.pack(
    ">7H 3H H 3H 3H 3H 2H",
    *(4, 0, 0, 6, 0, 0, 0),
    *(67, 98, 0xFFFF),
    0,
    *(65, 97, 0xFFFF),
    *(0x10000 - 64, 0, 1),
    *(0, 4, 0),
    *(0, 5),
)
GROUPS = struct.pack(">HHIII 3I 3I", 12, 0, 0, 0, 2, 65, 66, 1, 0x1F600, 0x1F602, 0)


def test_characters_by_hand() -> None:
    assert read_characters(font_of((3, 1, SEGMENTS))).tolist() == [65, 66, 67, 98]
    # Format 12 has all characters; glyph 0 means that there is none.
    both = font_of((3, 1, SEGMENTS), (3, 10, GROUPS))
    assert read_characters(both).tolist() == [65, 66, 0x1F601, 0x1F602]
    assert read_characters(font_of((1, 0, SEGMENTS))).tolist() == []  # of the Macintosh, not Unicode


def test_fonts_of_coloured_pictures_and_damaged_ones_have_no_characters() -> None:
    assert read_characters(font_of((3, 1, SEGMENTS), CBDT=b"")).tolist() == []
    whole = font_of((3, 10, GROUPS))
    for length in range(len(whole)):
        assert read_characters(whole[:length]).tolist() == []
