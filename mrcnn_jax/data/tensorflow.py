"""TensorFlow and its data sets, for input alone: quiet, and without the accelerators, which are JAX's."""

import os

# No start-up notices. oneDNN's comes at any log level while oneDNN is on, and tf.data does not use it.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")
import tensorflow as tf
import tensorflow_datasets as tfds

tf.config.set_visible_devices([], "GPU")

__all__ = ["tf", "tfds"]
