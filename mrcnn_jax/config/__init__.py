"""Every setting of a run.

``fields.py`` lists them in the words of ``rules.py``, ``io.py`` reads, compares and validates them, and
``suggestions.py`` answers to those that do not exist.
"""

from mrcnn_jax.config.fields import Config, DataConfig, ModelConfig, TestConfig, TrainConfig, to_dict

__all__ = ["Config", "DataConfig", "ModelConfig", "TestConfig", "TrainConfig", "to_dict"]
