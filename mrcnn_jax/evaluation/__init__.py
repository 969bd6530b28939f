"""Evaluates detections with COCO's average precision."""
