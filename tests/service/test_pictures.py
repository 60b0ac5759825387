"""Pictures: what is made of them, pixel by pixel; what is refused stands with the avatars."""

import random

import pytest
from PIL import Image, ImageOps, PngImagePlugin

from service import pictures
from service.errors import Invalid
from tests.pictures import a_picture, claiming, encoded, middle, opened, quarters


def test_a_picture_is_never_enlarged():
    made = pictures.squares(a_picture(size=(300, 100)))

    assert {size: opened(content).size for size, content in made.items()} == {
        64: (64, 64),
        128: (100, 100),
        256: (100, 100),
        512: (100, 100),
    }


@pytest.mark.parametrize("size", [(1, 1), (1, 3000), (3000, 1), (5000, 5000), (1025, 1023), (4097, 4999)], ids=str)
def test_every_size_is_taken(size):
    made = pictures.squares(encoded(Image.new("L", size, 80)))

    side = min(size)
    assert {number: opened(content).size for number, content in made.items()} == {
        number: (min(number, side),) * 2 for number in pictures.SIZES
    }
    assert {opened(content).convert("L").getextrema() for content in made.values()} == {(80, 80)}


@pytest.mark.parametrize("is_wide", [True, False])
def test_the_middle_is_shown(is_wide):
    flag = Image.new("RGB", (3000, 1000), "red")
    flag.paste("lime", (1000, 0, 2000, 1000))

    made = pictures.squares(encoded(flag if is_wide else flag.transpose(Image.Transpose.ROTATE_90)))

    for content in made.values():
        assert opened(content).getextrema()[0][1] < 16


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize(("kind", "size"), [("JPEG", (400, 300)), ("JPEG", (2200, 2100)), ("PNG", (40, 30))], ids=str)
def test_a_picture_is_turned_as_its_camera_was_held(orientation, kind, size):
    corner = Image.new("RGB", size, "white")
    corner.paste("black", (0, 0, size[0] // 2, size[1] // 2))
    exif = Image.Exif()
    exif[0x0112] = orientation
    photo = encoded(corner, kind, exif=exif)

    made = pictures.squares(photo)

    assert {tuple(quarters(content)) for content in made.values()} == {
        tuple(quarters(encoded(ImageOps.exif_transpose(opened(photo)))))
    }


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF"])
def test_nothing_but_pixels_is_handed_on(kind):
    exif, text = Image.Exif(), PngImagePlugin.PngInfo()
    exif[0x010E] = "canary"
    text.add_text("Author", "canary")
    remarks = {"exif": exif, "icc_profile": b"canary" * 40, "xmp": b"<x>canary</x>", "pnginfo": text}
    picture = a_picture(kind, comment=b"canary", **({} if kind == "GIF" else remarks))

    made = pictures.squares(picture)

    assert b"canary" in picture
    for content in made.values():
        assert b"canary" not in content
        assert opened(content).info.keys() <= {"loop", "background", "timestamp", "duration"}


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "I;16", "CMYK"])
def test_every_kind_of_colour_is_read(mode):
    grey = {"LA": (160, 255), "RGB": (160,) * 3, "RGBA": (160, 160, 160, 255), "I;16": 160 * 256, "1": 1}
    image = Image.new(mode, (90, 90), {**grey, "CMYK": (0, 0, 0, 95)}.get(mode, 160))
    if mode == "P":
        image.putpalette([value for value in range(256) for _ in "rgb"])

    made = pictures.squares(encoded(image, "JPEG" if mode == "CMYK" else "PNG"))

    assert middle(made[64]) == ((16,) * 4 if mode == "1" else (10, 10, 10, 16))


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "GIF"])
def test_what_is_transparent_stays_so(kind):
    made = pictures.squares(encoded(Image.new("RGBA", (90, 90), (255, 0, 0, 0)), kind))

    assert middle(made[128])[3] == 0


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "GIF"])
def test_of_what_moves_the_first_picture_is_taken(kind):
    frames = [Image.new("RGB", (90, 90), colour) for colour in ("red", "lime", "blue")]

    made = pictures.squares(encoded(frames[0], kind, save_all=True, append_images=frames[1:]))

    assert middle(made[64]) == (16, 0, 0, 16)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF"])
def test_the_same_picture_makes_the_same_files(kind):
    picture = encoded(Image.effect_noise((700, 600), 90).convert("RGB"), kind)

    assert pictures.squares(picture) == pictures.squares(picture)


@pytest.mark.parametrize(("kind", "width", "height"), [("PNG", 5000, 5000), ("GIF", 5000, 5000), ("JPEG", 5000, 5000)])
def test_as_many_pixels_as_are_allowed_are_let_through_the_header(kind, width, height):
    pictures.check(claiming(kind, width, height))

    with pytest.raises(Invalid):
        pictures.check(claiming(kind, width + 1, height))


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF"])
def test_a_damaged_picture_is_made_or_refused_and_nothing_else(kind):
    dice = random.Random(kind)  # The same damage each time.
    exif = Image.Exif()
    exif[0x0112], exif[0x010E] = 6, "a description"
    whole = a_picture(kind, (40, 30), **({} if kind == "GIF" else {"exif": exif}))

    ends = set()
    for _ in range(400):
        damaged = bytearray(whole)
        for _ in range(dice.choice((1, 3, 10))):
            damaged[dice.randrange(4, len(damaged))] = dice.randrange(256)
        try:
            ends.add(len(pictures.squares(bytes(damaged))))
        except Invalid as refusal:
            ends.add(refusal.faults[0].code)

    assert len(pictures.SIZES) in ends and "unsupported_image" in ends
    assert ends <= {len(pictures.SIZES), "unsupported_image", "broken_image", "too_many_pixels"}
