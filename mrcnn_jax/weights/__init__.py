"""Weights of other systems: torchvision's and Detectron2's."""
