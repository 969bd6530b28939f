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
