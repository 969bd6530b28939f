from pathlib import Path

from tests.run_command import run_apart, run_here


def test_writes_the_dataset_once_and_reports_it_in_one_line(tmp_path: Path) -> None:
    arguments = ["--output=made", "--train=2", "--val=1", "--image_size=32"]
    done = run_here("shapes", *arguments, directory=tmp_path)
    assert done.stderr == ""  # no progress bar where nobody watches
    assert done.stdout.startswith("made: 2 training and 1 validation images in ")
    assert done.stdout.count("\n") == 1
    assert done.returncode == 0
    assert len(list((tmp_path / "made").rglob("*.jpg"))) == 3

    done = run_here("shapes", *arguments, directory=tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (
        0,
        "made: already holds the same dataset\n",
        "",
    )

    done = run_here("shapes", *arguments, "--seed=1", directory=tmp_path)
    assert done.stderr.startswith("error: made: holds a dataset with other settings")
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 2)


def test_help_and_a_mistyped_flag(tmp_path: Path) -> None:
    done = run_here("shapes", "--help", directory=tmp_path)
    assert "Writes the synthetic dataset" in done.stdout
    assert "--image_size: side of the square images" in done.stdout
    assert (done.returncode, done.stderr) == (0, "")
    for arguments, message in (
        (["--trian=3"], "Unknown command line flag 'trian'. Did you mean: train ?"),
        (["--train=0"], "flag --train=0"),
        (["made"], "unexpected argument 'made'"),
    ):
        done = run_here("shapes", *arguments, directory=tmp_path)
        assert done.stderr.startswith(f"error: {message}"), done.stderr
        assert (done.returncode, done.stdout) == (1, "")
    assert list(tmp_path.iterdir()) == []


def test_starts_without_jax_and_tensorflow(tmp_path: Path) -> None:
    arguments = "--output=made", "--train=1", "--val=1", "--image_size=32"
    done = run_apart("shapes", *arguments, directory=tmp_path, python=("-X", "importtime"))
    assert done.returncode == 0
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "mrcnn_jax.data.shapes" in imported  # the list is one
    assert not imported & {"jax", "tensorflow", "orbax", "flax"}
