"""COCO files and records to training batches. Only ``tensorflow.py`` imports TensorFlow."""
