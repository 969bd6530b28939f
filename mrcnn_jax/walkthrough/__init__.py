"""Draws the paper's stages for one image: the pictures of docs/how_it_works.md and its notebooks.

``stages.py`` runs the model stage by stage, ``pictures.py`` draws what comes out, and ``regions.py`` shows
where RoIAlign and RoIPool read a map.
"""
