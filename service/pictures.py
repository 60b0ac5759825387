"""Pictures: what is taken for one, and the small squares made of it. Nothing is decoded anywhere else.

A file is small and what it claims to hold need not be: 60 bytes can ask for gigabytes, and a megabyte for minutes. The
header is judged first, and the bounds here are those of a machine with little memory.
"""

import struct
import threading
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO

from PIL import Image
from PIL.GifImagePlugin import GifImageFile
from PIL.ImageFile import ImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.WebPImagePlugin import WebPImageFile

from service.errors import Fault, Invalid

SIZES = (64, 128, 256, 512)  # Pixels of a side.
MOST_PIXELS = 25_000_000
# Of a progressive JPEG; cameras and programs write ten. Each goes over the whole picture, and can be 40 bytes long.
MOST_SCANS = 100
KINDS: dict[bytes, type[ImageFile]] = {
    b"\x89PNG\r\n\x1a\n": PngImageFile,
    b"\xff\xd8\xff": JpegImageFile,
    b"RIFF": WebPImageFile,
    b"GIF8": GifImageFile,
}
# EXIF 2.32 §4.6.4: how the picture is to be turned.
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
ORIENTATION = 0x0112
ROWS = 64  # Of the result, made at a time.
QUALITY = 80
# What Pillow raises about a file that is not as it should be.
BROKEN = (
    *(SyntaxError, OSError, EOFError, ValueError, LookupError, TypeError, ArithmeticError, AttributeError),
    *(struct.error, zlib.error, Image.DecompressionBombError),
)

# Pillow refuses what has more than twice as many, where it would otherwise make room for all while it reads the header.
Image.MAX_IMAGE_PIXELS = MOST_PIXELS // 2
_hushed = threading.Lock()


def check(content: bytes) -> None:
    """Refuse (Invalid) by its header what is no picture of a kind and size that is taken."""
    _opened(content)


def squares(content: bytes) -> dict[int, bytes]:
    """Return the middle of a picture as a WebP square of each size, or of its own where that is smaller.

    It is turned upright, and all that the file says beyond the pixels is left behind. Raises Invalid.
    """
    image = _opened(content)
    try:
        image.draft("RGB", (2 * SIZES[-1], 2 * SIZES[-1]))  # JPEG can be decoded at an eighth of its size.
        image.load()
        square = _upright(_middle(image), image)
    except BROKEN:
        raise _refused("broken_image", "The picture cannot be decoded.") from None
    return {size: _webp(square, size) for size in SIZES}


def _opened(content: bytes) -> ImageFile:
    kind = next((kind for mark, kind in KINDS.items() if content.startswith(mark)), None)
    if kind is None:
        raise _refused("unsupported_image", "Send a PNG, JPEG, WebP or GIF picture.")
    try:
        with _hush():
            image = kind(BytesIO(content))
    except Image.DecompressionBombError:
        raise _too_large() from None
    except BROKEN:
        raise _refused("unsupported_image", "The picture has no header that can be read.") from None
    if image.width * image.height > MOST_PIXELS:
        raise _too_large()
    if kind is JpegImageFile and content.count(b"\xff\xda") > MOST_SCANS:
        raise _refused("unsupported_image", f"The picture has more than {MOST_SCANS} scans.")
    return image


def _middle(image: ImageFile) -> Image.Image:
    """Return the middle square, about twice as large as needed at most; in strips, since a copy of all takes memory."""
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    factor = max(1, side // (2 * SIZES[-1]))
    square = Image.new("RGBA", (-(-side // factor),) * 2)
    for row in range(0, square.height, ROWS):
        lower = min(side, (row + ROWS) * factor)
        strip = image.crop((left, top + row * factor, left + side, top + lower))
        square.paste(_in_colour(strip).reduce(factor), (0, row))
    return square


def _in_colour(strip: Image.Image) -> Image.Image:
    if strip.mode.startswith("I;16"):  # 16 bits of grey, which would be cut off at 255.
        strip = strip.point(lambda value: value / 256, "L")
    return strip.convert("RGBA")


def _upright(square: Image.Image, image: ImageFile) -> Image.Image:
    try:
        with _hush():
            turn = TURNS.get(image.getexif().get(ORIENTATION, 1))
    except BROKEN:
        turn = None  # The picture is good, whatever became of the notes about it.
    return square.transpose(turn) if turn is not None else square


def _webp(square: Image.Image, size: int) -> bytes:
    """Return a new file; the square, being made of pixels only, has nothing else to hand on."""
    small = square.resize((size, size), Image.Resampling.LANCZOS) if size < square.width else square
    file = BytesIO()
    small.save(file, "WEBP", quality=QUALITY)
    return file.getvalue()


@contextmanager
def _hush() -> Iterator[None]:
    """Keep Pillow's remarks on odd files off the log; one at a time, since the filters are the whole process's."""
    with _hushed, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _too_large() -> Invalid:
    return _refused("too_many_pixels", f"Use at most {MOST_PIXELS // 1_000_000} million pixels.")


def _refused(code: str, detail: str) -> Invalid:
    return Invalid(faults=[Fault("/body", code, detail)])
