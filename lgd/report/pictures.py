"""Pictures inside the page: data URIs whose size together is bounded."""

import base64
import io
from collections.abc import Mapping

import numpy as np
from PIL import Image

_WIDEST = 1600  # pixels, two for each of a page
_SMALLER = 0.75  # how much smaller each further attempt is


def data_uris(pictures: Mapping[str, np.ndarray], *, max_bytes: int) -> dict[str, str]:
    """Pictures as data URIs by name: PNG if they fit, else JPEG, smaller until they do.

    Args:
      pictures: images (h, w, 3) in [0, 1].
      max_bytes: bound of all URIs together.
    """
    images = {
        name: Image.fromarray(np.round(255.0 * np.clip(x, 0.0, 1.0)).astype(np.uint8))
        for name, x in pictures.items()
    }
    scale = min([1.0, *(_WIDEST / image.width for image in images.values())])
    found, form = _encoded(images, scale, "png"), "jpeg"
    while sum(map(len, found.values())) > max_bytes and scale * _WIDEST > 1.0:
        found = _encoded(images, scale, form)
        scale *= _SMALLER
    return found


def _encoded(images: Mapping[str, Image.Image], scale: float, form: str) -> dict[str, str]:
    return {name: _uri(image, scale, form) for name, image in images.items()}


def _uri(image: Image.Image, scale: float, form: str) -> str:
    if scale < 1.0:
        width, height = (max(1, round(side * scale)) for side in image.size)
        image = image.resize((width, height), Image.Resampling.LANCZOS)
    content = io.BytesIO()
    image.save(content, format=form, **({"quality": 88} if form == "jpeg" else {"optimize": True}))
    return f"data:image/{form};base64,{base64.b64encode(content.getvalue()).decode()}"
