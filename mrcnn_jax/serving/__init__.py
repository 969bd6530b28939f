"""A detector behind HTTP: one page, JSON and pictures for images that are posted, metrics.

``app.py`` has the routes, ``uploads.py`` what may be posted, ``batcher.py`` how images of several requests
become batches.
"""
