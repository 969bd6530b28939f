from mrcnn_jax.evaluation.table import format_metrics


def test_tables() -> None:
    metrics = {
        "bbox": {
            "AP": 41.04,
            "AP50": 60.0,
            "AP75": 9.96,
            "APs": None,
            "APm": 100.0,
            "APl": 0.0,
            "AR100": 50.0,
        },
        "keypoints": {"AP": 70.0, "AP50": 80.0, "AP75": 75.0, "APm": 1.0, "APl": 2.0, "AR20": 71.0},
        "per_category": {
            "unseen": {"bbox": None},
            "ball": {"bbox": 12.0},
            "figure": {"bbox": 70.08, "keypoints": 70.0},
        },
    }
    assert format_metrics(metrics).splitlines() == [
        "              AP    AP50    AP75     APs     APm     APl      AR",
        "box         41.0    60.0    10.0       -   100.0     0.0    50.0",
        "keypoint    70.0    80.0    75.0       -     1.0     2.0    71.0",
        "",
        "AP by category     box  keypoint",
        "figure            70.1      70.0",
        "ball              12.0         -",
        "unseen               -         -",
    ]


def test_no_second_table_for_one_category() -> None:
    assert "AP by category" not in format_metrics(
        {"bbox": {"AP": 1.0}, "per_category": {"ball": {"bbox": 1.0}}}
    )


def test_lvis_has_columns_for_frequencies_and_the_best_of_many_categories() -> None:
    names = "AP", "AP50", "AP75", "APs", "APm", "APl", "APr", "APc", "APf", "AR300"
    metrics = {
        "bbox": dict(zip(names, range(10), strict=True)),
        "per_category": {f"c{number:03}": {"bbox": float(number) / 10} for number in range(103)},
    }
    lines = format_metrics(metrics).splitlines()
    assert lines[0].split() == [*names[:-1], "AR"]
    assert lines[1].split() == ["box", *(f"{number}.0" for number in range(10))]
    assert (lines[4].split(), lines[103].split()) == (["c102", "10.2"], ["c003", "0.3"])
    assert lines[104].strip() == "... and 3 more" and len(lines) == 105
