"""COCO results in the formats of other tools: a module per format, for ``mrcnn-jax from_coco``.

A format's module has one function, which takes the images one by one (``found.Found``) and writes files into
an ``OutputFolder``. The formats are JSON, XML, text and PNG, so they are written here without the tools'
libraries, which the tests read the files back with, where these are installed.
"""
