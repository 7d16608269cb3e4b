"""One picture out of a file, as the numbers that a model takes. The only importer of Pillow."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgepack.errors import InputError
from edgepack.quantize.preprocessing import Preprocessing

if TYPE_CHECKING:
    import numpy as np
    from PIL import Image

    Array = np.ndarray[Any, Any]

# Pillow can open many more; these are what cameras and data sets have, and what is not needed need not be trusted.
_FORMATS = ("PNG", "JPEG", "BMP", "WEBP", "TIFF", "PPM")
# Everything that holds 8 bits a channel; of 16 bits and floats Pillow would cut off the upper values in silence.
_MODES = ("1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "LAB", "HSV")


def decoder(
    preprocessing: Preprocessing, shape: tuple[int, int, int] | None, dtype: str
) -> Callable[[Path], Callable[[], Array]]:
    """A function that opens a picture and returns the function that decodes it: shape [height, width, channels].

    ``shape`` None leaves each at its own size, as uint8 RGB without any scaling. The picture's orientation tag is not
    followed: neither TensorFlow nor Keras does. Raises InputError "no-pillow"; what it returns raises "bad-image".
    """
    try:
        import PIL  # noqa: F401 (the modules of it are imported where they are used)
    except ImportError as fault:
        raise InputError(
            "no-pillow", "Reading images needs Pillow.", hint="pip install 'edgepack[quantize]', or pip install pillow"
        ) from fault
    finish = _finisher(preprocessing, shape, dtype)

    def opened(path: Path) -> Callable[[], Array]:
        image = _open(path)

        def decode() -> Array:
            try:
                with image:
                    image.load()
                    return finish(image)
            except Exception as fault:  # Pillow's readers raise anything over a damaged file
                raise _bad(path, f"cannot be read: {fault}") from fault

        return decode

    return opened


def _open(path: Path) -> Image.Image:
    from PIL import Image

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            image = Image.open(path, formats=_FORMATS)
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as fault:
        raise InputError(
            "bad-image",
            f"{path} claims more pixels than Pillow takes for an honest picture ({fault}).",
            hint="Save it smaller: the model's input is.",
        ) from fault
    except FileNotFoundError as fault:
        raise InputError("no-samples", f"{path} is not there any more.", hint="Run again.") from fault
    except PermissionError as fault:
        raise InputError("no-samples", f"{path} cannot be read.", hint="Check its permissions.") from fault
    except Exception as fault:  # Pillow's readers raise anything over a damaged file
        raise _bad(path, f"is no {', '.join(_FORMATS[:-1])} or {_FORMATS[-1]} that Pillow can read") from fault
    if image.mode not in _MODES:
        image.close()
        raise InputError(
            "bad-image",
            f"{path} has more than 8 bits a channel ({image.mode}), of which a picture would keep the lowest.",
            hint="Save 8-bit images, or the numbers as .npz.",
        )
    return image


def _finisher(
    preprocessing: Preprocessing, shape: tuple[int, int, int] | None, dtype: str
) -> Callable[[Image.Image], Array]:
    import numpy as np

    if shape is None:
        return lambda image: np.array(image.convert("RGB"))
    height, width, channels = shape
    resize = _resizer(preprocessing, width, height)
    values = _values(preprocessing, channels)
    table = (values if np.dtype(dtype).kind == "f" else np.round(values)).astype(dtype)
    reverse = preprocessing.colors == "bgr"

    def finish(image: Image.Image) -> Array:
        sized = resize(image.convert("L" if channels == 1 else "RGB"))
        pixels = np.asarray(sized).reshape(height, width, channels)
        found: Array = table[np.arange(channels), pixels[..., ::-1] if reverse else pixels]
        return found

    return finish


def _resizer(preprocessing: Preprocessing, width: int, height: int) -> Callable[[Image.Image], Image.Image]:
    from PIL import Image, ImageOps

    method = Image.Resampling[preprocessing.interpolation.upper()]

    def resize(image: Image.Image) -> Image.Image:
        if image.size == (width, height):
            return image
        if preprocessing.resize == "crop":
            return ImageOps.fit(image, (width, height), method)
        if preprocessing.resize == "pad":
            return ImageOps.pad(image, (width, height), method)
        return image.resize((width, height), method)

    return resize


def _values(preprocessing: Preprocessing, channels: int) -> Array:
    """What each of the 256 pixel values becomes in each channel, float64 [channels, 256]."""
    import numpy as np

    low, high = preprocessing.range or (0.0, 255.0)
    scaled = np.arange(256) / 255.0 * (high - low) + low
    mean = np.broadcast_to(np.array(preprocessing.mean or (0.0,)), channels)
    std = np.broadcast_to(np.array(preprocessing.std or (1.0,)), channels)
    values: Array = (scaled[None] - mean[:, None]) / std[:, None]
    return values


def _bad(path: Path, fault: str) -> InputError:
    return InputError(
        "bad-image", f"{path} {fault}.", hint="Remove the file or save it again; other files need another ending."
    )
