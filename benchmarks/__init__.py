"""Benchmarks, which ``mrcnn-jax benchmark NAME`` runs.

In the repository they have a folder of their own, and ``mrcnn_jax/benchmarks`` is a link to it.

``speed`` times ops, inference, training and evaluation, against torchvision and the machine's peak;
``profile`` adds up the time of one step by stage; ``roi`` compares RoIAlign with RoIPool; ``growth`` shows
how time grows with size; and ``data`` times the input pipeline.
"""
