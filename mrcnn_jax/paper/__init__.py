"""The experiments of the Mask R-CNN paper (arXiv 1703.06870), table by table."""
