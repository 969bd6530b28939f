"""Annotations of labelling tools as COCO entries: a module per format, for ``mrcnn-jax to_coco``.

Each format module has one function that fills a ``CocoBuilder``. They are written here rather than taken from
a library. supervision reads labelme, VOC and YOLO, but turns every polygon into a bitmap, loses labelme's
circles and masks, and reads neither VIA nor folders of masks. Datumaro requires OpenVINO 2023 and 80
other packages. labelme's own package is a GUI program under the GPL.
"""
