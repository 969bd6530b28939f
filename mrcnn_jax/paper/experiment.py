"""Trains and evaluates the rows of a table at small scale: whatever of it is not done yet.

FOLDER/shapes/               the pictures
FOLDER/proposals/BACKBONE/   an RPN by itself, and its proposals for all pictures (paper 3.1)
FOLDER/runs/ROW/seed0/       a row's run on these proposals, with scores.json once it is evaluated
FOLDER/table2c.json, .png    the result so far
"""

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mrcnn_jax.config import Config
from mrcnn_jax.data.shapes import make_shapes
from mrcnn_jax.evaluation.coco_eval import evaluate
from mrcnn_jax.json_files import read_json, write_json
from mrcnn_jax.paper import bed
from mrcnn_jax.paper.full_scale import backbone_name
from mrcnn_jax.paper.picture import draw_differences
from mrcnn_jax.paper.summary import Scores, differences, to_dict, to_text
from mrcnn_jax.paper.tables import TABLES, Row, Table
from mrcnn_jax.training.loop import train
from mrcnn_jax.weights.zoo_models import named_config

_SCORES = "scores.json"


@dataclass(frozen=True)
class Experiment:
    """The runs of a table in a folder. Rows with the same settings, of any table, are the same runs."""

    table: Table
    folder: Path

    def run(self, seeds: Sequence[int]) -> bool:
        """Does what is left, seed by seed; prints and writes the result after every run.

        Returns False if Ctrl-C or SIGTERM stopped a training, which the next call goes on with.
        """
        bed.draw(self.shapes)
        left = [
            (row, seed)
            for seed in seeds
            for row in self.table.rows
            if not self._scores_file(row, seed).is_file()
        ]
        started = time.monotonic()
        for number, (row, seed) in enumerate(left):
            print(
                f"\n== Table {self.table.number}, {row.label}, seed {seed}: {len(left) - number} runs left",
                flush=True,
            )
            if not self._run(row, seed):
                return False
            minutes = (time.monotonic() - started) / 60
            remaining = minutes / (number + 1) * (len(left) - number - 1)
            print(
                f"\n{self.report()}\n\n{minutes:.0f} min so far, about {remaining:.0f} min left", flush=True
            )
        if not left:
            print(self.report())
        return True

    def report(self) -> str:
        """The result so far, which is also written to the table's JSON file and picture."""
        scores = self.scores()
        path = self.folder / f"table{self.table.number}"
        write_json(path.with_suffix(".json"), to_dict(self.table, scores))
        if found := differences(self.table, scores):
            draw_differences(self.table, found, path.with_suffix(".png"))
        return to_text(self.table, scores)
