"""A model's arrays by name, separate from its structure.

Training, checkpoints and weight conversion all work on plain dicts from a dotted path
("backbone.layer1.0.conv1.kernel") to an array, in three groups: trained parameters, frozen
arrays, and batch norm's running statistics.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, TypeVar

import jax
from flax import nnx
from jax import Array

from mrcnn_jax.config import ModelConfig
from mrcnn_jax.models.folding import fold_norms
from mrcnn_jax.models.mask_rcnn import MaskRCNN
from mrcnn_jax.runtime.compilations import quick_compilation

Arrays = dict[str, Array]
Path = tuple[Any, ...]  # attribute names and list indices
T = TypeVar("T")


@dataclasses.dataclass(frozen=True)
class Blueprint:
    """A model's structure without its arrays; ``build`` puts arrays into it."""

    config: ModelConfig
    num_classes: int
    num_keypoints: int
    graphdef: nnx.GraphDef
    variables: dict[Path, nnx.Variable]  # shapes and dtypes, no arrays
    # Names of the arrays in the backbone's frozen stages and a frozen FPN, and of those in train.frozen.
    frozen_layers: frozenset[str]

    def shapes(self) -> dict[str, jax.ShapeDtypeStruct]:
        """Shape and dtype of every array, by name."""
        return {name_of(p): jax.ShapeDtypeStruct(v.shape, v.dtype) for p, v in self.variables.items()}

    def initialize(self, key: Array) -> Arrays:
        """Randomly initialised arrays, by name."""
        model = MaskRCNN(
            self.config, num_classes=self.num_classes, num_keypoints=self.num_keypoints, rngs=nnx.Rngs(key)
        )
        return arrays_of(model)

    def draw(self, key: Array) -> Arrays:
        """Like ``initialize``, up to rounding, but as one compiled program: faster for a full-size model."""
        return jax.jit(self.initialize, compiler_options=quick_compilation())(key)

    def build(self, arrays: Mapping[str, Array]) -> MaskRCNN:
        """The model with these arrays, one for every name in ``shapes``; to train it, call ``.train()``."""
        state = [(path, v.replace(arrays[name_of(path)])) for path, v in self.variables.items()]
        return nnx.merge(self.graphdef, nnx.from_flat_state(state))

    def folded(self) -> "Blueprint":
        """The blueprint for inference alone, with batch norms folded into convolutions."""
        model = nnx.eval_shape(lambda arrays: fold_norms(self.build(arrays)), self.shapes())
        graphdef, variables = _structure(model)
        return dataclasses.replace(self, graphdef=graphdef, variables=variables)

    def fold(self, arrays: Mapping[str, Array]) -> Arrays:
        """``arrays`` converted for ``folded().build``."""
        return arrays_of(fold_norms(self.build(arrays)))

    def split(self, arrays: Mapping[str, T]) -> tuple[dict[str, T], dict[str, T], dict[str, T]]:
        """``arrays``, or their shapes, split into three groups: params (trained), frozen, batch_stats."""
        params: dict[str, T] = {}
        frozen: dict[str, T] = {}
        batch_stats: dict[str, T] = {}
        for path, variable in self.variables.items():
            if name_of(path) in self.frozen_layers:
                group = frozen
            elif isinstance(variable, nnx.BatchStat):
                group = batch_stats
            else:
                group = params if isinstance(variable, nnx.Param) else frozen
            group[name_of(path)] = arrays[name_of(path)]
        return params, frozen, batch_stats


def make_blueprint(config: ModelConfig, *, num_classes: int, num_keypoints: int = 0) -> Blueprint:
    """The structure of the model that ``config`` describes; allocates no arrays.

    Made once for equal arguments: tracing the constructors of a ResNet-50 takes a second.
    """
    key = repr(config), num_classes, num_keypoints
    if key not in _BLUEPRINTS:
        own = dataclasses.replace(config)  # the caller may change theirs
        _BLUEPRINTS[key] = _trace_constructors(own, num_classes, num_keypoints)
    return _BLUEPRINTS[key]


_BLUEPRINTS: dict[tuple[str, int, int], Blueprint] = {}


class _OneKey(nnx.Rngs):
    """Gives everyone the same key. It is enough for shapes, and tracing the split of keys takes longest."""

    def params(self) -> Array:
        return self.default.key[...]


def _trace_constructors(config: ModelConfig, num_classes: int, num_keypoints: int) -> Blueprint:
    model = nnx.eval_shape(
        lambda: MaskRCNN(config, num_classes=num_classes, num_keypoints=num_keypoints, rngs=_OneKey(0))
    )
    model.eval()
    graphdef, variables = _structure(model)
    frozen = {
        name_of(path)
        for path in variables
        if (path[0] == "backbone" and model.backbone.is_frozen(path[1:]))
        or (path[0] == "fpn" and config.fpn_frozen)
    }
    return Blueprint(config, num_classes, num_keypoints, graphdef, variables, frozenset(frozen))


def _structure(model: nnx.Module) -> tuple[nnx.GraphDef, dict[Path, nnx.Variable]]:
    """A model's structure, and its variables by path."""
    graphdef, state = nnx.split(model)
    variables: dict[Path, nnx.Variable] = {}
    for path, variable in nnx.to_flat_state(state):
        variables[path] = variable
    return graphdef, variables


def arrays_of(model: MaskRCNN, kind: type[nnx.Variable] = nnx.Variable) -> Arrays:
    """The arrays that ``model`` now holds in variables of one ``kind``, by name."""
    return {name_of(path): v[...] for path, v in nnx.to_flat_state(nnx.state(model, kind))}


def name_of(path: Path) -> str:
    """The dotted name of a path, as in "backbone.layer1.0.conv1.kernel"."""
    return ".".join(map(str, path))
