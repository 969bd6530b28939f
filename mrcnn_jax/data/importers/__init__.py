"""Annotations of labelling tools as COCO entries: a module per format, for ``mrcnn-jax to_coco``.

Each format module has one function that fills a ``CocoBuilder``. They are written here rather than taken from
a library: supervision turns polygons into bitmaps and knows neither labelme, VIA nor folders of masks;
Datumaro requires 84 packages and OpenVINO 2023; and labelme's own package is a GUI program under the GPL.
"""
