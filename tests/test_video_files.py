"""Videos that are read and written: times, turned and odd sizes, sound, damage."""

import shutil
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("av", reason="needs PyAV (the extra [video])")

import av

from mrcnn_jax.video_files import VideoWriter, open_video
from tests.make_video import LOSSLESS, damage, make_video, packets_of

RNG = np.random.default_rng(0)
NOISE = list(RNG.integers(0, 256, (4, 6, 10, 3), np.uint8))
GRAYS = [np.full((32, 48, 3), value, np.uint8) for value in range(10, 250, 10)]  # tell their index
# The quarters are red, green, blue and white, from the upper left row by row.
QUARTERS = np.zeros((32, 48, 3), np.uint8)
QUARTERS[:16, :24], QUARTERS[:16, 24:] = (255, 0, 0), (0, 255, 0)
QUARTERS[16:, :24], QUARTERS[16:, 24:] = (0, 0, 255), (255, 255, 255)


def read(path):
    with open_video(path) as video:
        return list(video.frames())


def quarters(image):
    """The letter of each quarter's colour, from the upper left row by row."""
    height, width = image.shape[:2]
    names = {(1, 0, 0): "r", (0, 1, 0): "g", (0, 0, 1): "b", (1, 1, 1): "w"}
    centres = [
        image[y, x] > 127 for y in (height // 4, 3 * height // 4) for x in (width // 4, 3 * width // 4)
    ]
    return "".join(names[tuple(centre.astype(int).tolist())] for centre in centres)


def copy(source, target, change=lambda image: image):
    with open_video(source) as video, VideoWriter(target, video) as writer:
        for frame in video.frames():
            writer.write(change(frame.image), frame)
    return writer


def test_frames_by_hand(tmp_path):
    """Without loss: the pixels, and the times of 25 frames per second."""
    with open_video(make_video(tmp_path / "a.mkv", NOISE, **LOSSLESS)) as video:
        assert video.frame_rate == 25 and video.expected_frames == 4
        frames = list(video.frames())
    np.testing.assert_array_equal([frame.image for frame in frames], NOISE)
    assert [(frame.index, frame.time) for frame in frames] == [(0, 0.0), (1, 0.04), (2, 0.08), (3, 0.12)]
    assert not any(frame.is_damaged for frame in frames) and video.problems == []


@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv"])
def test_a_copy_has_the_times_of_its_source(tmp_path, suffix):
    """Also of a variable frame rate, in milliseconds."""
    times = [0, 40, 50, 1000, 1033, 4000]
    source = make_video(tmp_path / "a.mkv", GRAYS[:6], timestamps=times, time_base=Fraction(1, 1000))
    copy(source, tmp_path / f"b{suffix}")
    frames = read(tmp_path / f"b{suffix}")
    assert [round(1000 * frame.time) for frame in frames] == times
    for frame, image in zip(frames, GRAYS, strict=False):
        assert np.abs(frame.image.astype(int) - image).max() <= 3


@pytest.mark.parametrize(
    ("rotation", "seen"),
    [
        ((0, False, False), "rgbw"),
        ((90, False, False), "gwrb"),  # counterclockwise
        ((180, False, False), "wbgr"),
        ((-90, False, False), "brwg"),
        ((0, True, False), "grwb"),
        ((0, False, True), "bwrg"),
    ],
)
def test_phones_turn_their_videos(tmp_path, rotation, seen):
    (frame,) = read(make_video(tmp_path / "a.mp4", [QUARTERS], rotation=rotation))
    assert quarters(frame.image) == seen
    assert frame.image.shape == ((48, 32, 3) if abs(rotation[0]) == 90 else (32, 48, 3))
    copy(tmp_path / "a.mp4", tmp_path / "b.mp4")  # which is upright by itself
    (frame,) = read(tmp_path / "b.mp4")
    assert quarters(frame.image) == seen


def test_odd_sizes_are_padded_with_the_border(tmp_path):
    source = make_video(tmp_path / "a.mkv", [QUARTERS[:31, :47]] * 2, **LOSSLESS)
    copy(source, tmp_path / "b.mp4")
    frames = read(tmp_path / "b.mp4")
    assert len(frames) == 2 and frames[0].image.shape == (32, 48, 3)
    assert quarters(frames[0].image) == "rgbw"
    np.testing.assert_allclose(frames[0].image[-1], frames[0].image[-2], atol=3)


def test_pixels_become_square(tmp_path):
    (frame,) = read(make_video(tmp_path / "a.mp4", [QUARTERS], aspect=Fraction(4, 3)))
    assert frame.image.shape == (32, 64, 3) and quarters(frame.image) == "rgbw"


def test_ten_bits(tmp_path):
    (frame,) = read(make_video(tmp_path / "a.mkv", [QUARTERS], codec="ffv1", pix_fmt="yuv422p10le"))
    assert frame.image.dtype == np.uint8 and quarters(frame.image) == "rgbw"


@pytest.mark.parametrize(("source", "target"), [("a.mp4", "b.mp4"), ("a.mkv", "b.mp4"), ("a.mp4", "b.mkv")])
def test_sound_is_copied_byte_by_byte(tmp_path, source, target):
    make_video(tmp_path / source, GRAYS, audio="aac")
    writer = copy(tmp_path / source, tmp_path / target)
    before, after = packets_of(tmp_path / source, "audio"), packets_of(tmp_path / target, "audio")
    assert len(before) > 40 and [data for _, data in after] == [data for _, data in before]
    # Matroska has no times before 0: sound and pictures are shifted alike.
    shifts = [packets_of(tmp_path / name, "video")[0][0] for name in (target, source)]
    times = [np.array([time for time, _ in packets]) for packets in (after, before)]
    assert np.abs((times[0] - shifts[0]) - (times[1] - shifts[1])).max() <= 0.001
    assert writer.left_out == []
    assert len(read(tmp_path / target)) == len(GRAYS)


def test_sound_that_the_format_does_not_take_is_named(tmp_path):
    make_video(tmp_path / "a.wmv", GRAYS[:3], codec="wmv2", audio="wmav2")
    assert copy(tmp_path / "a.wmv", tmp_path / "b.mp4").left_out == [
        "audio stream 0 is left out: 'mp4' format does not support 'wmav2' codec"
    ]
    assert len(read(tmp_path / "b.mp4")) == 3


def test_recordings_begin_at_zero_and_may_be_joined(tmp_path):
    """Two broadcasts one after the other: the times of the second begin again, and its frames are larger.

    FFmpeg's decoder loses the last frame before it.
    """
    second = list(RNG.integers(150, 250, (5, 96, 96, 3), np.uint8))
    noise = list(RNG.integers(0, 256, (50, 64, 64, 3), np.uint8))
    make_video(tmp_path / "a.ts", noise, codec="mpeg2video")
    make_video(tmp_path / "b.ts", second, codec="mpeg2video")
    both = tmp_path / "both.ts"
    both.write_bytes((tmp_path / "a.ts").read_bytes() + (tmp_path / "b.ts").read_bytes())
    frames = read(both)
    assert len(frames) == 54 and {frame.image.shape for frame in frames} == {(64, 64, 3)}
    np.testing.assert_allclose([frame.time for frame in frames], np.arange(54) / 25, atol=1e-9)
    assert [round(frame.image.mean() / 10) for frame in frames[-6:]] == [13, 20, 20, 20, 20, 20]


def test_damage_after_a_joint_is_named_with_its_time(tmp_path):
    """The second of two joined recordings, of 30 frames each, has noise for its packets."""
    noise = list(RNG.integers(0, 256, (30, 64, 64, 3), np.uint8))
    first = make_video(tmp_path / "a.ts", noise, options={"g": "8", "bf": "0"}).read_bytes()
    second = bytearray(first)
    for start in range(0, len(second), 188):  # of the container's packets; those of pictures have number 256
        if int.from_bytes(second[start + 1 : start + 3]) & 0x1FFF == 256:
            second[start + 60 : start + 188] = RNG.bytes(128)
    (tmp_path / "both.ts").write_bytes(first + second)
    with open_video(tmp_path / "both.ts") as video:
        assert len(list(video.frames())) == 30
    (problem,) = video.problems
    assert problem.startswith("at 1.200 s: cannot be decoded: ")


def test_damaged_frames_are_named_and_the_rest_goes_on(tmp_path):
    """Frame 8 begins a group of eight, and lost the second half of its data; frame 17 lost all of it."""
    noise = list(RNG.integers(0, 256, (24, 64, 64, 3), np.uint8))
    path = make_video(tmp_path / "a.mp4", noise, options={"g": "8", "bf": "0", "sc_threshold": "0"})
    damage(path, 8, share=0.5)
    damage(path, 17)
    with open_video(path) as video:
        frames = list(video.frames())
    assert "frame 8 at 0.320 s is damaged" in video.problems
    assert any(problem.startswith("at 0.680 s: cannot be decoded: ") for problem in video.problems)
    assert [frame.is_damaged for frame in frames[:8]] == [False] * 8
    assert video.lost == 1 and len(frames) == 23
    assert video.damaged == sum(frame.is_damaged for frame in frames) == len(video.problems) - 1
    assert frames[-1].time == 23 / 25


def test_a_recording_that_was_cut_off(tmp_path):
    path = make_video(tmp_path / "a.mkv", GRAYS, options={"g": "4"})
    path.write_bytes(path.read_bytes()[:-500])
    assert 0 < len(read(path)) < len(GRAYS)


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_a_writer_that_is_killed_or_interrupted_leaves_a_readable_file(tmp_path, suffix):
    source = make_video(tmp_path / "a.mp4", GRAYS, options={"g": "4"})
    with (
        pytest.raises(KeyboardInterrupt),
        open_video(source) as video,
        VideoWriter(tmp_path / f"b{suffix}", video) as writer,
    ):
        frames = list(video.frames())
        for number in range(120):
            frame = replace(frames[number % 24], timestamp=number * 512, time=number / 25)
            writer.write(frame.image, frame)
        shutil.copy(tmp_path / f"b{suffix}", tmp_path / f"killed{suffix}")
        raise KeyboardInterrupt
    assert len(read(tmp_path / f"b{suffix}")) == 120
    assert 24 < len(read(tmp_path / f"killed{suffix}")) < 120  # some are in the encoder


@pytest.mark.parametrize("content", [b"", b"no video at all"])
def test_files_that_are_no_video(tmp_path, content):
    (tmp_path / "b.mp4").write_bytes(content)
    with pytest.raises(ValueError, match=r"b\.mp4: cannot be read as a video"):
        read(tmp_path / "b.mp4")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("b.m3u8", "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\na.ts\n#EXT-X-ENDLIST\n"),
        ("b.mp4", "ffconcat version 1.0\nfile a.ts\n"),
    ],
)
def test_lists_of_other_files_are_not_opened(tmp_path, name, content):
    make_video(tmp_path / "a.ts", GRAYS, codec="mpeg2video")
    (tmp_path / name).write_text(content)
    with av.open(str(tmp_path / name)) as opened:  # as FFmpeg does, unless it is told not to
        assert len(list(opened.decode(video=0))) == len(GRAYS)
    with pytest.raises(ValueError, match=f"{name}: cannot be read as a video"):
        read(tmp_path / name)


def test_frames_of_too_many_pixels(tmp_path, monkeypatch):
    """At most twice ``Image.MAX_IMAGE_PIXELS``, also where the size changes."""
    large = list(RNG.integers(150, 250, (5, 96, 96, 3), np.uint8))
    make_video(tmp_path / "a.ts", GRAYS, codec="mpeg2video")
    make_video(tmp_path / "b.ts", large, codec="mpeg2video")
    both = tmp_path / "both.ts"
    both.write_bytes((tmp_path / "a.ts").read_bytes() + (tmp_path / "b.ts").read_bytes())
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 32 * 48 // 2)
    with open_video(both) as video:
        assert len(list(video.frames())) <= len(GRAYS) and video.lost > 0
    with pytest.raises(ValueError, match=r"b\.ts: its frames are 96 x 96; at most 1536 pixels are read"):
        read(tmp_path / "b.ts")


def test_files_without_pictures(tmp_path):
    make_video(tmp_path / "a.mp4", GRAYS[:3], audio="aac")
    with pytest.raises(FileNotFoundError, match=r"b\.mp4"):
        read(tmp_path / "b.mp4")
    content = (tmp_path / "a.mp4").read_bytes()
    (tmp_path / "b.mp4").write_bytes(content[: content.index(b"moov")])  # its table of contents comes last
    with pytest.raises(ValueError, match=r"b\.mp4: cannot be read as a video"):
        read(tmp_path / "b.mp4")
    make_video(tmp_path / "c.mp4", [], audio="aac")
    with pytest.raises(ValueError, match=r"c\.mp4: has no video stream, but audio; a video must have one"):
        read(tmp_path / "c.mp4")
    make_video(tmp_path / "d.mp4", GRAYS[:1], codec="mjpeg", pix_fmt="yuvj420p", audio="aac", is_cover=True)
    with pytest.raises(
        ValueError, match=r"d\.mp4: has no video stream, but a cover picture and audio; a video"
    ):
        read(tmp_path / "d.mp4")
