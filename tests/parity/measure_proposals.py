"""Measures how closely Fast R-CNN on a file of proposals matches Detectron2's, on real images.

    python tests/parity/measure_proposals.py --peer=PEER/bin/python --source=DETECTRON2 \
        --images=COCO/val2017 --output=DIR

PEER and DETECTRON2 are those of ``measure.py``. Both sides get the same seeded weights, and 1500 random boxes
for each image with random scores, of which 1000 are used.
"""

import argparse
import subprocess
import sys
from pathlib import Path

import numpy as np
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[2]))  # run as a script

from mrcnn_jax.distributed.sharding import make_mesh
from mrcnn_jax.inference.detector import Detector, make_predict_fn
from mrcnn_jax.models.variables import make_blueprint
from mrcnn_jax.proposals import ImageProposals, read_proposals, write_proposals
from mrcnn_jax.runtime.setup import setup
from mrcnn_jax.weights.files import read_arrays
from mrcnn_jax.weights.zoo_models import named_config
from tests.parity import compare, ours
from tests.parity.measure import DETECTRON2, Report

PROPOSALS = 1500


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--peer", required=True)
    parser.add_argument("--source", type=Path, required=True)
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--count", type=int, default=2)
    parser.add_argument("--gain", action="append", default=[])
    arguments = parser.parse_args()
    setup()
    output = arguments.output
    output.mkdir(parents=True, exist_ok=True)
    images = sorted(arguments.images.glob("*.jpg"))[: arguments.count]
    file = output / "proposals.npz"
    file.unlink(missing_ok=True)
    write_proposals(file, [(number, _random_boxes(image, number)) for number, image in enumerate(images)])
    script = Path(__file__).parent / "detectron2_proposals_peer.py"
    flags = [f"--source={arguments.source}", f"--output={output}"]
    flags += [f"--gain={gain}" for gain in arguments.gain]
    subprocess.run([arguments.peer, script, *flags, *images], check=True)

    config = named_config("detectron2/fast_rcnn_r50_fpn_1x")
    blueprint = make_blueprint(config.model, num_classes=len(DETECTRON2.categories), num_keypoints=0)
    arrays = read_arrays(output / "weights.pkl")
    weights = ours.to_device(DETECTRON2.read(arrays, blueprint, source=str(output / "weights.pkl")))
    predict_fn = make_predict_fn(blueprint, config, make_mesh())(weights)
    detector = Detector(predict_fn, config, DETECTRON2.categories)
    sizes = np.array([Image.open(image).size[::-1] for image in images])
    proposals = read_proposals(file).of_images(np.arange(len(images)), sizes, source=str(file))
    total = compare.Detections()
    with np.load(output / "inference.npz") as theirs:
        for number, found in enumerate(detector.stream(images, proposals=proposals.__getitem__)):
            reference = {name: theirs[f"{number}/{name}"] for name in ("boxes", "scores", "labels")}
            total.add(found, reference, paste=config.test.mask_paste)
    report = Report()
    for name, value, bound, note in total.rows():
        report.add(f"{len(images)} images, {name}", value, bound, note)
    return 1 if report.failed else 0


def _random_boxes(path: Path, seed: int) -> ImageProposals:
    rng = np.random.default_rng(seed)
    with Image.open(path) as image:
        size = np.array(image.size, np.float64)
    centre, side = rng.uniform(0, size, (PROPOSALS, 2)), np.exp(rng.uniform(2.5, 6, (PROPOSALS, 2)))
    corners = np.clip(np.stack([centre - side / 2, centre + side / 2], axis=1), 0, size)
    objectness = np.sort(rng.normal(0, 3, PROPOSALS))[::-1]
    return ImageProposals(corners.reshape(-1, 4).astype(np.float32), objectness.astype(np.float32))


if __name__ == "__main__":
    sys.exit(main())
