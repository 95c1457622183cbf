"""Encoded image files to upright pixels, inside the graph: formats, limits, refusals, the cache."""
