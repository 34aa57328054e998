"""Images edited with a trained model: `ddpm-sample --mode=inpaint`, `--mode=image_to_image`.

masks.py      which pixels are drawn anew
edits.py      what comes of it, as arrays of images
pictures.py   as pictures in a work folder
"""

from ddpm_jax.editing.pictures import MODES, Edit, draw

__all__ = ["MODES", "Edit", "draw"]
