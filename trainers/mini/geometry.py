"""Sizes that the parts of the mini bundle agree on, in pixels."""

PATCH = 16
"""Side of a latent token and of a patch of the VLM; a slot of the VLM is 2 x 2 of them. Fixed by the classes."""
REFERENCE_SIDE = 96
"""Side of a reference, a square around the face."""
HEIGHT, WIDTH = 128, 192
"""Of a picture."""
MAX_REFERENCES = 3
