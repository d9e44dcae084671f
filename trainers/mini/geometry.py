"""Sizes that the parts of the mini bundle agree on, in pixels."""

PATCH = 16
"""Side of a latent token and of a patch of the VLM; a slot of the VLM is 2 x 2 of them. Fixed by the classes."""
REFERENCE_SIDE = 128
"""Side of a reference, a square around the head."""
HEIGHT, WIDTH = 160, 256
"""Of a wide picture."""
SQUARE = 256
"""Side of a square picture."""
SIZES = ((SQUARE, SQUARE), (HEIGHT, WIDTH))
"""All that are learned, the one that is made where nothing else is said first."""
MAX_REFERENCES = 3
CENTRES = {1: (128,), 2: (80, 176), 3: (48, 128, 208)}
"""Where the middles of faces lie across a picture: whole latent tokens away from where they lie in a reference."""
TEXT_STRIDE = 192
"""Prompts are padded to a multiple of this many tokens."""
