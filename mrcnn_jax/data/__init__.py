"""From COCO files to batches; only ``pipeline`` imports TensorFlow."""
