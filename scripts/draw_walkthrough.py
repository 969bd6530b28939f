#!/usr/bin/env python3
"""Draws the pictures of docs/how_it_works.md, of a model that was trained on shapes:

    mrcnn-jax shapes --output=data/shapes
    mrcnn-jax train --config=shapes --workdir=runs/shapes --config.train.steps=700 --config.train.eval_every=0
    scripts/draw_walkthrough.py --workdir=runs/shapes --output=docs/how_it_works

The picture is drawn for this purpose and is not among those trained on. Existing files are replaced.
"""

from pathlib import Path

from absl import app, flags

_WORKDIR = flags.DEFINE_string("workdir", "runs/shapes", "a run with --config=shapes")
_OUTPUT = flags.DEFINE_string("output", "docs/how_it_works", "folder to write to")
_SEED = flags.DEFINE_integer("seed", 41, "seed of the picture", lower_bound=0)


def main(_: list[str]) -> None:
    from mrcnn_jax.benchmarks.curves import draw_panels
    from mrcnn_jax.runs.scalars import read_scalars
    from mrcnn_jax.walkthrough.drawing import save
    from mrcnn_jax.walkthrough.pictures import PICTURES, loss_curves
    from mrcnn_jax.walkthrough.stages import draw_picture, run_stages

    workdir, output = Path(_WORKDIR.value), Path(_OUTPUT.value)
    output.mkdir(parents=True, exist_ok=True)
    stages = run_stages(workdir, *draw_picture(_SEED.value, size=128, height=96))
    for name, draw in PICTURES.items():
        save(draw(stages), output / f"{name}.png")
    draw_panels(loss_curves(read_scalars(workdir / "tensorboard")), output / "losses.png")


if __name__ == "__main__":
    app.run(main)
