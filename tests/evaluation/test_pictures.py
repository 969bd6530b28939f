import numpy as np

from mrcnn_jax.data.open_data_source import open_validation_source
from mrcnn_jax.evaluation.pictures import annotated, as_result, side_by_side
from mrcnn_jax.inference.draw import COLORS, draw
from tests.report.hand_made import BALL, FIGURE, HEIGHT, WIDTH, entries, make_run


def test_annotations_and_detections_become_results(tmp_path):
    source = open_validation_source(make_run(tmp_path))
    objects = annotated(source, 0, masks=True, keypoints=True)
    assert objects.names == [BALL, FIGURE] and objects.scores.tolist() == [1, 1]
    assert objects.boxes.tolist() == [[2, 2, 14, 14], [30, 4, 50, 34]]
    assert [int(mask.sum()) for mask in objects.masks] == [144, 600]
    assert objects.masks[0, 2:14, 2:14].all()
    assert np.isnan(objects.keypoints[0]).all()
    assert objects.keypoints[1].tolist() == [[30, 4, 2], [50, 34, 2]]

    found = as_result(entries()[:3], (HEIGHT, WIDTH), source.categories, masks=True, keypoints=True)
    assert (
        found.names == [BALL, FIGURE, BALL] and found.scores.tolist() == np.float32([0.9, 0.8, 0.7]).tolist()
    )
    np.testing.assert_array_equal(found.masks[:2], objects.masks)
    assert len(annotated(source, 1, masks=True, keypoints=True)) == 0


def test_side_by_side(tmp_path):
    source = open_validation_source(make_run(tmp_path))
    image = source.read(0).pixels
    objects = annotated(source, 0, masks=True, keypoints=False)
    found = as_result(entries()[1:2], (HEIGHT, WIDTH), source.categories, masks=True, keypoints=False)
    picture = side_by_side(image, objects, found)
    width = (picture.shape[1] - 8) // 2
    assert (picture[:, width : width + 8] == 255).all()
    # A category has the same colour on both sides, whatever its place in the results.
    left = draw(image, objects, texts=[BALL, FIGURE], colors=COLORS[:2])
    right = draw(image, found, colors=[COLORS[1]])
    np.testing.assert_array_equal(picture, np.concatenate([left, picture[:, width : width + 8], right], 1))
