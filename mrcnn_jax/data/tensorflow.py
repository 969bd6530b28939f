"""Imports TensorFlow and TFDS for input pipelines only: quiet, and with the GPUs left to JAX."""

import os

# No startup messages. oneDNN prints one at any log level unless disabled, and tf.data does not need oneDNN.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")
import tensorflow as tf
import tensorflow_datasets as tfds
from tensorflow_datasets.core.utils.lazy_imports_utils import array_record_data_source

tf.config.set_visible_devices([], "GPU")

__all__ = ["array_record_data_source", "tf", "tfds"]
