"""Finds objects in millions of images: ``mrcnn-jax predict_many``.

The images are listed once (``inputs``) and cut into shards (``job``). A worker finds the objects in a shard's
images and writes its file (``worker``, ``part_files``); ``ray_cluster`` runs workers as actors of Ray.
"""
