"""Pictures: made for a test, and looked at as those who are shown them do."""

import struct
import zlib
from io import BytesIO
from typing import Any

from PIL import Image

TYPES = {"PNG": "image/png", "JPEG": "image/jpeg", "WEBP": "image/webp", "GIF": "image/gif"}


def encoded(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    """Return a picture as a file."""
    file = BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def a_picture(kind: str = "PNG", size: tuple[int, int] = (200, 150), colour: str = "teal", **options: Any) -> bytes:
    """Return a file with a picture of one colour."""
    return encoded(Image.new("RGB", size, colour), kind, **options)


def opened(content: bytes) -> Image.Image:
    """Return the picture that a file holds, decoded."""
    image = Image.open(BytesIO(content))
    image.load()
    return image


def middle(content: bytes) -> tuple[int, ...]:
    """Return the colour in the middle of a picture, in steps of 16, since WebP is not exact."""
    image = opened(content).convert("RGBA")
    return tuple(round(value / 16) for value in image.getpixel((image.width // 2, image.height // 2)))


def quarters(content: bytes) -> list[bool]:
    """Tell of each quarter of a picture, row by row, whether it is bright."""
    small = opened(content).convert("L").resize((2, 2), Image.Resampling.BOX)
    return [value > 128 for value in small.tobytes()]


def claiming(kind: str, width: int, height: int) -> bytes:
    """Return a small file whose header claims to hold a picture of some size."""
    if kind == "PNG":
        header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 6, 0, 0, 0)
        data = b"IDAT" + zlib.compress(bytes(1000))
        chunks = [struct.pack(">I", len(c) - 4) + c + struct.pack(">I", zlib.crc32(c)) for c in (header, data)]
        return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)
    if kind == "GIF":
        screen = b"GIF89a" + struct.pack("<HHBBB", width, height, 0x80, 0, 0) + bytes(6)
        return screen + b"," + struct.pack("<HHHHB", 0, 0, width, height, 0) + b"\x02\x02\x4c\x01\x00;"
    if kind == "JPEG":
        small = a_picture("JPEG", (8, 8))
        at = small.index(b"\xff\xc0") + 5
        return small[:at] + struct.pack(">HH", height, width) + small[at + 4 :]
    size = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    body = b"WEBPVP8X" + struct.pack("<I", 10) + bytes(4) + size + a_picture("WEBP", (8, 8))[12:]
    return b"RIFF" + struct.pack("<I", len(body)) + body


def of_many_scans(count: int) -> bytes:
    """Return a small progressive JPEG that goes over 25 million pixels again and again."""
    file = encoded(Image.new("RGB", (5000, 5000)), "JPEG", progressive=True)
    return file[:-2] + file[file.rindex(b"\xff\xda") : -2] * count + file[-2:]
