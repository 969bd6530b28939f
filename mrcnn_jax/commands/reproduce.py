"""Trains the rows of one of the paper's tables side by side, and shows whether its direction holds.

    mrcnn-jax reproduce --list
    mrcnn-jax reproduce --table=2c
    mrcnn-jax reproduce --table=2c --scale=full

At small scale the rows are trained on drawn shapes, with narrow layers, once for each of --seeds seeds. All
rows of a seed begin with the same backbone, and see the same batches and proposals. What is done is not done
again: the same command goes on where it was interrupted, and rows that tables share are trained once. The
result is printed, and written to table2c.json and table2c.png in --folder.

--scale=full prints the commands that train the rows on COCO, with the paper's numbers beside them. All of the
paper's tables have it; --list says which have the small scale, too. See docs/paper.md.
"""

from pathlib import Path

from absl import flags

from mrcnn_jax.paper.full_tables import FULL_TABLES
from mrcnn_jax.paper.tables import TABLES
from mrcnn_jax.runtime.setup import setup

_TABLE = flags.DEFINE_enum("table", None, list(FULL_TABLES), "number of the table in the paper")
_LIST = flags.DEFINE_bool("list", False, "list the tables and their rows")
_SCALE = flags.DEFINE_enum(
    "scale", "small", ["small", "full"], "train at small scale, or print COCO's commands"
)
_SEEDS = flags.DEFINE_integer("seeds", 3, "number of runs of every row", lower_bound=1)
_FOLDER = flags.DEFINE_string("folder", "runs/paper", "where pictures, proposals, runs and results are kept")


def main(_: list[str]) -> int | None:
    if _LIST.value:
        small = {row.config for table in TABLES.values() for row in table.rows}
        for table in FULL_TABLES.values():
            print(f"{table.number:<4}{table.title}")
            for row in table.rows:
                only = "" if row.config in small else "  only --scale=full"
                print(f"      {row.label:<28}configs/paper/{row.config}.py{only}")
        return None
    if _TABLE.value is None:
        raise ValueError("--table is missing; --list shows which there are")
    if _SCALE.value == "full":
        from mrcnn_jax.paper.full_scale import commands

        print("\n".join(commands(FULL_TABLES[_TABLE.value], _FOLDER.value)))
        return None
    if _TABLE.value not in TABLES:
        raise ValueError(
            f"--table={_TABLE.value} has no small scale, which tables {', '.join(TABLES)} have; print its "
            "commands for COCO with --scale=full"
        )
    setup(keep_memory=False)
    from mrcnn_jax.distributed import hosts
    from mrcnn_jax.paper.experiment import Experiment

    hosts.join(num_processes=1, handle_sigterm=True)
    finished = Experiment(TABLES[_TABLE.value], Path(_FOLDER.value)).run(range(_SEEDS.value))
    return None if finished else 128 + hosts.stop_signal()
