"""Inference: images to detections, and detections to results and pictures."""
