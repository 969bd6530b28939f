"""The scores of a run's evaluations, and whether training should end because they no longer improve."""

from pathlib import Path

from mrcnn_jax.distributed import hosts
from mrcnn_jax.json_files import read_json, write_json

Scores = dict[str, float]  # COCO's AP in percent by kind, or the recall of proposals


class History:
    """The scores after each evaluated step up to ``step``, as ``validation/scores.json`` in a run has them.

    Process 0 reads and writes the file, and tells the others. What an interrupted run has measured after
    later steps is dropped. Raises ValueError, naming the file, if it is malformed.
    """

    def __init__(self, workdir: Path, *, step: int) -> None:
        self._path = workdir / "validation" / "scores.json"
        with hosts.fail_together():
            found = _read(self._path) if hosts.is_main_process() and self._path.exists() else []
        found = hosts.all_gather(found)[0]
        self.scores: dict[int, Scores] = {
            evaluated: scores for evaluated, scores in found if evaluated <= step
        }

    def add(self, step: int, scores: Scores) -> None:
        """Adds an evaluation; one of data without objects has no scores and does not count."""
        if not scores:
            return
        self.scores[step] = scores
        if hosts.is_main_process():
            self._path.parent.mkdir(parents=True, exist_ok=True)
            write_json(self._path, {str(evaluated): values for evaluated, values in self.scores.items()})

    def reason_to_stop(self, patience: int) -> str | None:
        """A line that says so if the last ``patience`` evaluations were no better than one before; else None.

        Better is a higher mean of the scores, by which the best checkpoint is chosen, too. With a patience of
        0 there is never a reason.
        """
        if not patience or not self.scores:
            return None
        steps = list(self.scores)
        best = max(steps, key=lambda step: sum(self.scores[step].values()) / len(self.scores[step]))
        if len(steps) - 1 - steps.index(best) < patience:  # of equal ones the first is the best
            return None
        measured = ", ".join(f"{kind} {score:.1f}" for kind, score in self.scores[best].items())
        return (
            f"no evaluation of the last {len(steps) - 1 - steps.index(best)} was better than that of step "
            f"{best} ({measured}; train.stop_after is {patience})"
        )


def _read(path: Path) -> list[tuple[int, Scores]]:
    """The scores by step in a file, in order."""
    values = read_json(path)
    if not isinstance(values, dict) or not all(
        step.isdecimal()
        and isinstance(scores, dict)
        and scores
        and all(isinstance(score, int | float) for score in scores.values())
        for step, scores in values.items()
    ):
        raise ValueError(
            f"{path}: must have an object of scores for each step; remove the file to go on without them"
        )
    return sorted((int(step), scores) for step, scores in values.items())
