"""Parametric people that exist nowhere: meshes, renderer, scenes, captions and data sets."""
