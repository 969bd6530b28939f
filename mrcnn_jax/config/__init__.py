"""Every setting of a run: ``fields.py`` lists them, ``io.py`` reads, compares and validates them."""

from mrcnn_jax.config.fields import Config, DataConfig, ModelConfig, TestConfig, TrainConfig, to_dict

__all__ = ["Config", "DataConfig", "ModelConfig", "TestConfig", "TrainConfig", "to_dict"]
