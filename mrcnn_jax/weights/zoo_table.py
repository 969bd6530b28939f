"""The tables of docs/zoo.md: ``python -m mrcnn_jax.weights.zoo_table`` prints them."""

from collections.abc import Iterable

from mrcnn_jax.weights.zoo_models import BACKBONES, MODELS, Weights


def model_table() -> str:
    """The published models as a Markdown table."""
    rows = [
        (
            f"`{model.name}`",
            *("" if value is None else f"{value:.1f}" for value in (*model.ap, None, None)[:3]),
            _size(model),
            _link(model),
            f"`{model.arguments}`",
        )
        for model in MODELS.values()
    ]
    return _markdown(("name", "box AP", "mask AP", "keypoint AP", "MiB", "file", "config"), rows)


def backbone_table() -> str:
    """The published ImageNet backbones as a Markdown table."""
    rows = [(f"`{weights.name}`", _size(weights), _link(weights)) for weights in BACKBONES.values()]
    return _markdown(("name", "MiB", "file"), rows)


def _size(weights: Weights) -> str:
    return "" if weights.mib is None else f"{weights.mib:.1f}"


def _link(weights: Weights) -> str:
    return f"[{weights.file}]({weights.address})"


def _markdown(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [head, ("---",) * len(head), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


if __name__ == "__main__":
    print(f"{model_table()}\n\n{backbone_table()}")
