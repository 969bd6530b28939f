"""Inference as an ONNX graph, written stage by stage from a model's layers: see ``detector.py``."""
