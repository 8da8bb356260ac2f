"""Image files in, image files out: RGB frames, silhouettes, RGBA cut-outs and their resizing.

Everything is uint8; alpha is the silhouette and colours are straight (not premultiplied). Reads one image at a time and
knows nothing about clips or cameras.
"""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image, UnidentifiedImageError

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")
UNREADABLE = (UnidentifiedImageError, OSError, ValueError, SyntaxError, Image.DecompressionBombError)
"""All that PIL raises on damaged files."""
FOREGROUND = 128
"""Alpha from which a pixel counts as inside the silhouette."""


class DataError(ValueError):
    """The input cannot be used; the message is one line that names the file and the remedy."""


def is_image(path: Path) -> bool:
    """Whether the name is an image's and not a hidden file's."""
    return path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".")


def list_images(folder: Path) -> list[Path]:
    """The image files of a folder in the order of their names (none for a folder that does not exist)."""
    return sorted(path for path in folder.iterdir() if is_image(path)) if folder.is_dir() else []


def _decode(path: Path, flags: int) -> UInt8[np.ndarray, "H W *channels"]:
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist; restore it, or remove it from the clip.")
    try:
        encoded = np.fromfile(path, np.uint8)  # cv2.imread cannot open non-ASCII names on every system
        image = cv2.imdecode(encoded, flags) if len(encoded) else None
    except (OSError, cv2.error) as error:  # unreadable, or a header that promises far too many pixels
        raise DataError(f"{path} cannot be read as an image; replace or remove it, or allow reading it.") from error
    if image is None:
        raise DataError(f"{path} cannot be read as an image; it is empty or damaged, so replace or remove it.")
    return (np.asarray(image) // 257).astype(np.uint8) if image.dtype == np.uint16 else image


def read_rgb(path: Path) -> UInt8[np.ndarray, "H W 3"]:
    """The colours of an image file."""
    return cv2.cvtColor(_decode(path, cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)


def read_rgba(path: Path) -> UInt8[np.ndarray, "H W 4"]:
    """The colours and alpha of an image file that has an alpha channel."""
    image = _decode(path, cv2.IMREAD_UNCHANGED)
    if image.ndim != 3 or image.shape[2] != 4:
        raise DataError(
            f"{path} has no alpha channel; add masks (a masks/ folder beside images/) or save RGBA cut-outs."
        )
    return cv2.cvtColor(image, cv2.COLOR_BGRA2RGBA)


def read_mask(path: Path) -> UInt8[np.ndarray, "H W"]:
    """The silhouette of a mask file, 0 to 255.

    Palette files (DAVIS) and label files, whose values all stay below 128, count every label but 0 as the animal.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist; every frame needs its mask.")
    try:
        with Image.open(path) as file:
            labels, has_alpha = file.mode in ("P", "1"), file.mode in ("RGBA", "LA")
            values = np.array(file)
    except UNREADABLE as error:
        raise DataError(f"{path} cannot be read as a mask; it is empty or damaged, so replace it.") from error
    if values.ndim == 3:
        # An opaque alpha channel says nothing: then the mask is in the colours.
        values = values[..., -1] if has_alpha and values[..., -1].min() < 255 else values[..., :3].max(axis=-1)
    if labels or values.max() < FOREGROUND:
        return np.where(values > 0, 255, 0).astype(np.uint8)
    return (values / 257 if values.max() > 255 else values).astype(np.uint8)


def join_rgba(
    rgb: UInt8[np.ndarray, "H W 3"], mask: UInt8[np.ndarray, "h w"], source: Path | str
) -> UInt8[np.ndarray, "H W 4"]:
    """RGBA of colours and their silhouette; `source` names the mask in the error for two different sizes."""
    if rgb.shape[:2] != mask.shape:
        sizes = f"{mask.shape[1]}x{mask.shape[0]}, its image {rgb.shape[1]}x{rgb.shape[0]}"
        raise DataError(f"{source} is {sizes}; masks must have the size of their images.")
    return np.dstack([rgb, mask])


def write_rgba(path: Path, rgba: UInt8[np.ndarray, "H W 4"]) -> None:
    """Writes a PNG; colours outside the silhouette are dropped, as they would only cost space."""
    visible = np.where(rgba[..., 3:] > 0, rgba, 0).astype(np.uint8)
    encoded, buffer = cv2.imencode(".png", cv2.cvtColor(visible, cv2.COLOR_RGBA2BGRA), [cv2.IMWRITE_PNG_COMPRESSION, 3])
    assert encoded
    with open(path, "wb") as file:
        file.write(buffer.tobytes())
        file.flush()


def write_mask(path: Path, mask: UInt8[np.ndarray, "H W"]) -> None:
    """Writes a silhouette as a one-channel PNG."""
    encoded, buffer = cv2.imencode(".png", mask)
    assert encoded
    path.write_bytes(buffer.tobytes())


def resize_rgba(rgba: UInt8[np.ndarray, "H W 4"], width: int, height: int) -> UInt8[np.ndarray, "h w 4"]:
    """Resizes with colours weighted by alpha, so that no background bleeds into the silhouette's rim."""
    if rgba.shape[:2] == (height, width):
        return rgba
    shrinks = width < rgba.shape[1]
    weighted = rgba.astype(np.float32)
    weighted[..., :3] *= weighted[..., 3:] / 255.0
    resized = cv2.resize(weighted, (width, height), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
    resized[..., :3] *= 255.0 / np.maximum(resized[..., 3:], 1e-3)
    return np.clip(np.round(resized), 0, 255).astype(np.uint8)


def fitted_size(width: int, height: int, max_side: int) -> tuple[int, int]:
    """Width and height shrunk in proportion so that the longer is at most `max_side` (0: as they are)."""
    if max_side <= 0 or max_side >= max(width, height):
        return width, height
    factor = max_side / max(width, height)
    return max(1, round(width * factor)), max(1, round(height * factor))


def fit_max_side(rgba: UInt8[np.ndarray, "H W 4"], max_side: int) -> UInt8[np.ndarray, "h w 4"]:
    """The image shrunk so that its longer side is at most `max_side` pixels (0: as it is)."""
    return resize_rgba(rgba, *fitted_size(rgba.shape[1], rgba.shape[0], max_side))


def crop_square(rgba: UInt8[np.ndarray, "H W 4"], left: int, top: int, side: int) -> UInt8[np.ndarray, "side side 4"]:
    """A square cut out of the image; where it reaches past the border it is transparent."""
    height, width = rgba.shape[:2]
    square = np.zeros((side, side, 4), np.uint8)
    x0, x1, y0, y1 = max(left, 0), min(left + side, width), max(top, 0), min(top + side, height)
    if x0 < x1 and y0 < y1:
        square[y0 - top : y1 - top, x0 - left : x1 - left] = rgba[y0:y1, x0:x1]
    return square


def undistort_rgba(
    rgba: UInt8[np.ndarray, "H W 4"], intrinsics: Float[np.ndarray, "3 3"], distortion: tuple[float, ...]
) -> UInt8[np.ndarray, "H W 4"]:
    """The image as a pinhole camera with the same intrinsics sees it; `distortion` is k1, k2, k3, k4, p1, p2."""
    k1, k2, k3, k4, p1, p2 = distortion
    coefficients = np.array([k1, k2, p1, p2, k3, k4, 0.0, 0.0])
    top_left = intrinsics.copy()
    top_left[:2, 2] -= 0.5  # OpenCV puts pixel centres at whole numbers
    return cv2.undistort(rgba, top_left, coefficients)


def image_size(path: Path) -> tuple[int, int]:
    """Width and height, from the file's header alone."""
    try:
        with Image.open(path) as file:
            return file.size
    except UNREADABLE as error:
        raise DataError(f"{path} cannot be read as an image; replace or remove it.") from error
