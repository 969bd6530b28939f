"""Trains and evaluates the rows of a table at small scale: whatever of it is not done yet.

FOLDER/shapes/                 the pictures, and the proposals for them
FOLDER/rpn/BACKBONE/           an RPN by itself, whose proposals they are (paper 3.1)
FOLDER/runs/ROW/seed0/         a row's run on these proposals, with scores.json once it is evaluated
FOLDER/table2c.json, .png      the result so far
"""

import functools
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from mrcnn_jax.config import Config
from mrcnn_jax.config.io import differences as config_differences
from mrcnn_jax.data.open_data_source import open_data_source, open_validation_source
from mrcnn_jax.data.source import DataSource
from mrcnn_jax.evaluation.coco_eval import evaluate
from mrcnn_jax.inference.proposer import load_proposer
from mrcnn_jax.json_files import read_json, write_json
from mrcnn_jax.paper import bed
from mrcnn_jax.paper.full_scale import backbone_name
from mrcnn_jax.paper.picture import draw_differences
from mrcnn_jax.paper.summary import Scores, differences, to_dict, to_text
from mrcnn_jax.paper.tables import TABLES, Metric, Row, Table
from mrcnn_jax.proposals import write_proposals
from mrcnn_jax.runs.description import read_run
from mrcnn_jax.runtime.progress import progress_bar
from mrcnn_jax.training.loop import train
from mrcnn_jax.weights.zoo_models import named_config

_SCORES = "scores.json"


@dataclass(frozen=True)
class Experiment:
    """The runs of a table in ``folder``. Rows with the same settings, of any table, are the same runs."""

    table: Table
    folder: Path

    def run(self, seeds: Sequence[int]) -> bool:
        """Does what is left, seed by seed; prints and writes the result after every run.

        Returns False if Ctrl-C or SIGTERM stopped a training, which the next call goes on with.
        """
        bed.draw(self.folder / "shapes")
        done = self._scores()
        left = [
            (row, seed) for seed in seeds for row in self.table.rows if seed not in done.get(row.config, {})
        ]
        for row, _ in left:
            if not self._propose(self._config(row, seed=0)):
                return False
        started = time.monotonic()
        for number, (row, seed) in enumerate(left):
            print(f"\n== {row.label}, seed {seed}; {len(left) - number} runs left", flush=True)
            if not self._train(self._config(row, seed), self._workdir(row, seed)):
                return False
            minutes = (time.monotonic() - started) / 60
            remaining = minutes / (number + 1) * (len(left) - number - 1)
            print(f"\n{self._report()}\n\n{minutes:.0f} min; about {remaining:.0f} min left", flush=True)
        if not left:
            print(self._report())
        return True

    def _train(self, config: Config, workdir: Path) -> bool:
        if not train(config, workdir, init=self._rpn(config)):
            return False
        write_json(workdir / _SCORES, evaluate(workdir, progress=True))
        return True

    def _propose(self, config: Config) -> bool:
        """Trains the RPN of a row and writes its proposals, unless that is done; False if it was stopped."""
        rpn, alone = self._rpn(config), bed.rpn_alone(config)
        root = Path(config.data.root)
        train_file, val_file = root / config.data.train_proposals, root / config.data.val_proposals
        if train_file.is_file() and val_file.is_file():
            _check_settings(rpn, alone)
            return True
        print(f"RPN of {rpn.name} by itself", flush=True)
        if not train(alone, rpn):
            return False
        if not train_file.is_file():
            self._write_proposals(alone, rpn, train_file, "train")
        if not val_file.is_file():
            self._write_proposals(alone, rpn, val_file, "val")
        return True

    def _write_proposals(self, config: Config, rpn: Path, path: Path, split: Literal["train", "val"]) -> None:
        source = open_data_source(config) if split == "train" else open_validation_source(config)
        proposer = load_proposer(rpn, batch_size=config.test.batch_size, split=split)
        found = proposer.stream(functools.partial(_pixels, source), source.sizes)
        found = progress_bar(found, total=len(source.ids))
        write_proposals(path, ((int(source.ids[index]), image) for index, image in found))

    def _report(self) -> str:
        """The result so far, which is also written to the table's JSON file and picture."""
        scores = self._scores()
        path = self.folder / f"table{self.table.number}"
        write_json(path.with_suffix(".json"), to_dict(self.table, scores))
        if found := differences(self.table, scores):
            draw_differences(self.table, found, path.with_suffix(".png"))
        return to_text(self.table, scores)

    def _scores(self) -> dict[str, dict[int, Scores]]:
        """The scores of the runs that are done, by the row's config and the seed."""
        found: dict[str, dict[int, Scores]] = {}
        for row in self.table.rows:
            for path in sorted(self._workdir(row, 0).parent.glob(f"seed*/{_SCORES}")):
                seed = int(path.parent.name.removeprefix("seed"))
                _check_settings(path.parent, self._config(row, seed))
                metrics = read_json(path)
                try:
                    scores = {metric: _score(metrics, metric) for metric in row.paper}
                except (KeyError, TypeError) as error:
                    raise ValueError(f"{path}: has no {', '.join(map(str, row.paper))}: {error!r}") from error
                found.setdefault(row.config, {})[seed] = scores
        return found

    def _workdir(self, row: Row, seed: int) -> Path:
        return self.folder / "runs" / _namesakes()[row.config] / f"seed{seed}"

    def _rpn(self, config: Config) -> Path:
        return self.folder / "rpn" / backbone_name(config)

    def _config(self, row: Row, seed: int) -> Config:
        return bed.shrink(named_config(f"paper/{row.config}"), self.folder / "shapes", seed=seed)


@functools.cache
def _namesakes() -> dict[str, str]:
    """For each row's config the first one, of any table, with the same settings at small scale."""
    names = [row.config for table in TABLES.values() for row in table.rows]
    small = {name: bed.shrink(named_config(f"paper/{name}"), Path(), seed=0) for name in names}
    return {name: next(other for other in names if small[other] == small[name]) for name in names}


def _check_settings(workdir: Path, config: Config) -> None:
    """Raises ``ValueError`` if a finished run had other settings: those of another version of the bed."""
    changed = config_differences(config, read_run(workdir).config).keys() - {"data.root"}
    if changed:
        raise ValueError(
            f"{workdir} was trained with other settings ({', '.join(sorted(changed))}); "
            "choose another --folder, or delete the directory"
        )


def _pixels(source: DataSource, index: int) -> np.ndarray:
    return source.read(index).pixels


def _score(metrics: dict[str, Any], metric: Metric) -> float:
    if metric.category:
        return metrics["per_category"][metric.category][metric.kind]
    return metrics[metric.kind][metric.name]
