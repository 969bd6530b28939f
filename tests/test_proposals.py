"""The file of proposals, and their rows in a batch."""

import pickle

import numpy as np
import pytest

from mrcnn_jax.proposals import ImageProposals, pad_proposals, read_proposals, write_proposals

SIZES = np.array([(10, 20), (30, 40)])  # of images 7 and 3


def image(*rows):
    """Proposals of an image: x1 y1 x2 y2 and a logit each."""
    values = np.array(rows, np.float32).reshape(-1, 5)
    return ImageProposals(values[:, :4], values[:, 4])


def write(path, **changes):
    """A file of two images; ``changes`` replace its arrays."""
    write_proposals(
        path, [(7, image((0, 0, 5, 5, -1.0), (1, 2, 3, 4, 2.0))), (3, image((0, 0, 40, 30, 0.5)))]
    )
    if changes:
        with np.load(path) as archive:
            arrays = dict(archive)
        np.savez(path, **{**arrays, **changes})
    return path


def test_a_file_by_hand(tmp_path):
    with np.load(write(tmp_path / "p.npz")) as archive:
        assert archive["ids"].tolist() == [7, 3] and archive["offsets"].tolist() == [0, 2, 3]
        assert archive["boxes"].tolist() == [[1, 2, 3, 4], [0, 0, 5, 5], [0, 0, 40, 30]]  # best first
        assert archive["objectness"].tolist() == [2.0, -1.0, 0.5]
        assert [archive[name].dtype for name in archive] == [np.int64, np.int64, np.float32, np.float32]
    assert [path.name for path in tmp_path.iterdir()] == ["p.npz"]


def test_the_proposals_of_a_data_set_by_index(tmp_path):
    found = read_proposals(write(tmp_path / "p.npz")).of_images(
        np.array([3, 7]), SIZES[::-1], source="val.json"
    )
    assert found[0].boxes.tolist() == [[0, 0, 40, 30]] and found[0].objectness.tolist() == [0.5]
    assert found[1].boxes.tolist() == [[1, 2, 3, 4], [0, 0, 5, 5]]


def test_a_file_may_have_more_images(tmp_path):
    found = read_proposals(write(tmp_path / "p.npz")).of_images(np.array([3]), SIZES[1:], source="val.json")
    assert len(found[0].boxes) == 1


def test_nothing_is_written_over(tmp_path):
    path = tmp_path / "p.npz"
    path.write_text("mine")
    with pytest.raises(FileExistsError, match=r"p\.npz: already exists"):
        write(path)
    assert path.read_text() == "mine"


def test_an_interrupted_file_is_not_left(tmp_path):
    def interrupted():
        yield 7, image((0, 0, 5, 5, 1.0))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_proposals(tmp_path / "p.npz", interrupted())
    assert not list(tmp_path.iterdir())


def test_images_without_proposals(tmp_path):
    path = tmp_path / "p.npz"
    assert write_proposals(path, [(7, image()), (3, image())]) == 0
    assert len(read_proposals(path).of_images(np.array([7]), SIZES[:1], source="")[0].boxes) == 0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"ids": np.array([7, 7])}, "ids must all be different"),
        ({"ids": np.array([7.0, 3.0])}, r"ids is float64 \[2\], must be i8 of 1 axes"),
        ({"offsets": np.array([0, 2])}, "offsets must be 3 ascending numbers from 0"),
        ({"offsets": np.array([0, 3, 2])}, "offsets must be 3 ascending numbers from 0"),
        ({"offsets": np.array([0, 2, 4])}, r"boxes \[3, 4\] and objectness \[3\] must have 4 rows"),
        ({"boxes": np.zeros((3, 5), np.float32)}, r"boxes \[3, 5\] .* must have 3 rows"),
        ({"objectness": np.array([0, np.nan, 0], np.float32)}, r"image 7: .* not finite"),
        ({"boxes": np.array([[0] * 4] * 2 + [[0, 0, np.inf, 1]], np.float32)}, r"image 3: .* not finite"),
    ],
)
def test_a_file_of_something_else(tmp_path, changes, message):
    with pytest.raises(ValueError, match=rf"p\.npz: .*{message}"):
        read_proposals(write(tmp_path / "p.npz", **changes))


def test_files_of_other_kinds(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such file of proposals"):
        read_proposals(tmp_path / "absent.npz")
    path = tmp_path / "box_proposals.pkl"
    path.write_bytes(pickle.dumps({"ids": []}))
    with pytest.raises(ValueError, match="propose converts those of Detectron2"):
        read_proposals(path)
    np.savez_compressed(tmp_path / "small.npz", ids=np.zeros(9))
    with pytest.raises(ValueError, match="it is compressed"):
        read_proposals(tmp_path / "small.npz")
    np.savez(tmp_path / "objects.npz", ids=np.array([{}], object))
    with pytest.raises(ValueError, match="allow_pickle=False"):
        read_proposals(tmp_path / "objects.npz")


@pytest.mark.parametrize("box", [(0, 0, 22, 10), (-2, 0, 5, 5), (5, 0, 4, 5), (0, 0, 20, 12)])
def test_boxes_that_are_not_of_their_image(tmp_path, box):
    path = tmp_path / "p.npz"
    write_proposals(path, [(7, image((*box, 1.0)))])
    with pytest.raises(
        ValueError, match=r"p\.npz: image 7: the box .* val says is 20 pixels wide and 10 high"
    ):
        read_proposals(path).of_images(np.array([7]), SIZES[:1], source="val")


def test_a_box_may_be_rounded_beyond_its_image(tmp_path):
    path = tmp_path / "p.npz"
    write_proposals(path, [(7, image((-0.5, 0, 20.5, 10, 1.0)))])
    assert read_proposals(path).of_images(np.array([7]), SIZES[:1], source="val")[0].objectness == 1


def test_images_that_the_file_has_not(tmp_path):
    with pytest.raises(ValueError, match=r"for 2 of the 3 images of val, such as image 8"):
        read_proposals(write(tmp_path / "p.npz")).of_images(np.array([7, 8, 9]), SIZES, source="val")


def test_rows_of_a_batch_by_hand():
    """The second box is empty after clipping; of the other three the two best are taken."""
    boxes = np.array([[-1, 2, 5, 30], [21, 0, 30, 5], [0, 0, 1, 1], [2, 2, 3, 3]], np.float64)
    rows = pad_proposals(boxes, np.array([4.0, 3.0, 2.0, 1.0]), size=(10, 20), count=2)
    assert rows["boxes"].tolist() == [[0, 2, 5, 10], [0, 0, 1, 1]] and rows["boxes"].dtype == np.float32
    assert rows["scores"].tolist() == [4, 2] and rows["valid"].tolist() == [True, True]


def test_rows_without_a_proposal():
    rows = pad_proposals(np.array([[1, 1, 2, 2]]), np.array([4.0]), size=(10, 20), count=3)
    assert rows["boxes"].tolist() == [[1, 1, 2, 2], [0] * 4, [0] * 4]
    assert rows["valid"].tolist() == [True, False, False] and rows["scores"].tolist() == [4, -np.inf, -np.inf]
