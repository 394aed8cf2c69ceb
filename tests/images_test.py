"""What every kind of picture becomes, with values worked out by hand."""

import dataclasses
import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from flamingo_jax.config import ImagePreprocessing
from flamingo_jax.images import BadMedia, decode_image
from tests.torch_reference import import_torch

PP = ImagePreprocessing(size_px=8, background=(255, 255, 255), pad=(10, 20, 30))


def encoded(image: Image.Image, file_format: str = "PNG", **options) -> bytes:
    file = io.BytesIO()
    image.save(file, file_format, **options)
    return file.getvalue()


def png(width: int, height: int, bit_depth: int, colour_type: int, rows: bytes) -> bytes:
    """A PNG written by hand: Pillow cannot write every kind, and none with a lying header."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        )

    header = struct.pack(">IIBBBBB", width, height, bit_depth, colour_type, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )


def noise(height: int, width: int, channels: int = 3) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, channels), np.uint8)


def test_right_size_comes_back_pixel_for_pixel():
    pixels = noise(8, 8)
    np.testing.assert_array_equal(decode_image(encoded(Image.fromarray(pixels)), PP), pixels)


@pytest.mark.parametrize("scale", [1, 4, 40])
def test_wide_picture_keeps_its_aspect_ratio_and_is_padded_above_and_below(scale):
    image = Image.new("RGB", (8 * scale, 4 * scale), (200, 0, 0))
    square = decode_image(encoded(image), PP)
    assert square.shape == (8, 8, 3)
    assert square.dtype == np.uint8
    assert (square[2:6] == (200, 0, 0)).all()
    assert (square[[0, 1, 6, 7]] == PP.pad).all()


def test_tall_sliver_keeps_one_column():
    square = decode_image(encoded(Image.new("RGB", (1, 1000), (0, 0, 0))), PP)
    assert ((square == 0).all(axis=(0, 2))).sum() == 1


def test_small_picture_is_enlarged():
    assert (decode_image(encoded(Image.new("RGB", (2, 2), (1, 2, 3))), PP) == (1, 2, 3)).all()


def test_reducing_averages_instead_of_picking_pixels():
    """Black and white stripes of one pixel become grey; without antialiasing they stay stripes."""
    stripes = np.zeros((64, 64, 3), np.uint8)
    stripes[:, ::2] = 255
    square = decode_image(encoded(Image.fromarray(stripes)), PP).astype(int)
    assert abs(square[2:6, 2:6] - 127).max() <= 3


def test_transparent_pixels_show_the_background():
    pixels = np.zeros((8, 8, 4), np.uint8)
    pixels[..., 0] = 99  # colour under alpha 0 is garbage, and must not be seen
    pixels[4:] = (0, 100, 0, 255)
    pixels[7] = (0, 0, 0, 128)
    square = decode_image(encoded(Image.fromarray(pixels)), PP)
    assert (square[:4] == 255).all()
    assert (square[4:7] == (0, 100, 0)).all()
    assert abs(square[7].astype(int) - 127).max() <= 1


def test_palette_with_a_transparent_entry():
    image = Image.new("P", (8, 8), 0)
    image.putpalette([255, 0, 0, 0, 0, 255])
    image.paste(1, (0, 0, 8, 4))
    square = decode_image(encoded(image, transparency=0), PP)
    assert (square[:4] == (0, 0, 255)).all()
    assert (square[4:] == 255).all()


def test_grey_with_alpha_and_colour_key():
    grey = decode_image(encoded(Image.new("LA", (8, 8), (50, 0))), PP)
    assert (grey == 255).all()
    keyed = decode_image(encoded(Image.new("RGB", (8, 8), (9, 8, 7)), transparency=(9, 8, 7)), PP)
    assert (keyed == 255).all()


def test_sixteen_bit_grey_keeps_its_upper_byte():
    """0x1234 is 0x12 of 255; Pillow's own conversion to RGB would clip it to white."""
    rows = (b"\x00" + b"\x12\x34" * 8) * 8
    assert (decode_image(png(8, 8, 16, 0, rows), PP) == 0x12).all()


def test_integers_of_32_bits_that_hold_8_are_not_black():
    eight, sixteen = (np.full((8, 8), value, np.int32) for value in (0x12, 0x1234))
    for grey in (eight, sixteen):
        assert (decode_image(Image.fromarray(grey), PP) == 0x12).all()


def test_sixteen_bit_colour():
    rows = (b"\x00" + b"\x12\x34\x56\x78\x9a\xbc" * 8) * 8
    assert (decode_image(png(8, 8, 16, 2, rows), PP) == (0x12, 0x56, 0x9A)).all()


def test_cmyk_jpeg_becomes_rgb():
    cyan = Image.new("CMYK", (64, 64), (255, 0, 0, 0))
    square = decode_image(encoded(cyan, "JPEG", quality=95), PP).astype(int)
    assert abs(square - (0, 255, 255)).max() <= 4


CORNER_OF_ORIENTATION = {
    1: (0, 0), 2: (0, 7), 3: (7, 7), 4: (7, 0), 5: (0, 0), 6: (0, 7), 7: (7, 7), 8: (7, 0)
}  # fmt: skip


@pytest.mark.parametrize(("orientation", "corner"), CORNER_OF_ORIENTATION.items())
def test_exif_orientation_moves_the_red_corner(orientation, corner):
    image = Image.new("RGB", (64, 64), (0, 0, 0))
    image.paste((255, 0, 0), (0, 0, 16, 16))
    exif = Image.Exif()
    exif[0x0112] = orientation
    square = decode_image(encoded(image, "JPEG", quality=95, exif=exif.tobytes()), PP)
    assert square[corner][0] > 200
    assert (square[..., 0] > 128).sum() == 4


def test_exif_rotation_swaps_the_sides():
    exif = Image.Exif()
    exif[0x0112] = 6
    wide = encoded(Image.new("RGB", (64, 32), (200, 0, 0)), "JPEG", exif=exif.tobytes())
    square = decode_image(wide, PP)
    assert (square[:, [0, 1, 6, 7]] == PP.pad).all()


def test_large_jpeg_decoded_small_looks_like_the_whole_decoded():
    smooth = np.linspace(0, 255, 1024)[None, :, None] * np.ones((512, 1, 3))
    data = encoded(Image.fromarray(smooth.astype(np.uint8)), "JPEG", quality=95)
    whole = Image.open(io.BytesIO(data)).resize((8, 4), Image.Resampling.BICUBIC)
    square = decode_image(data, PP)
    assert abs(square[2:6].astype(int) - np.asarray(whole)).max() <= 2


@pytest.mark.parametrize("file_format", ["PNG", "JPEG", "WEBP", "GIF", "BMP"])
def test_formats_paths_images_and_arrays_agree(file_format, tmp_path):
    data = encoded(Image.fromarray(noise(12, 8)), file_format)
    path = tmp_path / "picture"
    path.write_bytes(data)
    square = decode_image(data, PP)
    np.testing.assert_array_equal(decode_image(path, PP), square)
    np.testing.assert_array_equal(decode_image(str(path), PP), square)
    image = Image.open(path)
    np.testing.assert_array_equal(decode_image(image, PP), square)
    np.testing.assert_array_equal(decode_image(np.asarray(image.convert("RGB")), PP), square)
    assert image.size == (8, 12)


def test_first_frame_of_an_animation():
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    data = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert (decode_image(data, PP) == (255, 0, 0)).all()


@pytest.mark.parametrize("file_format", ["PNG", "JPEG", "WEBP", "GIF"])
@pytest.mark.parametrize("kept", [0.01, 0.3, 0.6, 0.9])
def test_truncated_files_say_so(file_format, kept):
    data = encoded(Image.fromarray(noise(64, 64)), file_format)
    with pytest.raises(BadMedia) as error:
        decode_image(data[: int(kept * len(data))], PP)
    assert error.value.reason in ("truncated", "damaged")


def test_bomb_is_known_by_its_header_before_it_is_decoded():
    """900 million pixels from a few bytes: decoding would take 2.7 GB."""
    for width, height in [(30_000, 30_000), (9_000, 9_000)]:
        with pytest.raises(BadMedia) as error:
            decode_image(png(width, height, 8, 2, b"\x00" * 100), PP)
        assert error.value.reason == "too_large"


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty"),
        (b"<html>not found</html>", "not_an_image"),
        ("no/such/file.png", "not_found"),
        (io.BytesIO(b"x"), "not_an_image"),
        ([1, 2], "not_an_image"),
        (np.zeros((4, 4, 3), np.float32), "not_an_image"),
        (np.zeros((4, 4, 2), np.uint8), "not_an_image"),
        (np.zeros((0, 4, 3), np.uint8), "empty"),
        (Image.new("F", (4, 4)), "unsupported_mode"),
    ],
)
def test_what_is_no_picture_names_its_reason(data, reason):
    with pytest.raises(BadMedia) as error:
        decode_image(data, PP)
    assert error.value.reason == reason


@pytest.mark.parametrize("file_format", ["PNG", "JPEG", "WEBP", "GIF", "BMP"])
def test_mutated_files_decode_or_are_bad_media_and_nothing_else(file_format):
    rng = np.random.default_rng(1)
    data = encoded(Image.fromarray(noise(16, 16)), file_format)
    for _ in range(150):
        mutated = bytearray(data)
        for position in rng.integers(0, len(data), 4):
            mutated[position] = rng.integers(0, 256)
        try:
            outcome = decode_image(bytes(mutated), PP).shape
        except BadMedia as error:
            outcome = error.reason
        assert outcome in ((8, 8, 3), "truncated", "damaged", "not_an_image", "too_large")


def fitted(fit: str, **changes) -> ImagePreprocessing:
    return dataclasses.replace(PP, fit=fit, **changes)


def test_crop_keeps_the_middle_of_the_picture():
    pixels = noise(8, 12)
    image = encoded(Image.fromarray(pixels))
    np.testing.assert_array_equal(decode_image(image, fitted("crop")), pixels[:, 2:10])
    turned = encoded(Image.fromarray(pixels.swapaxes(0, 1)))
    np.testing.assert_array_equal(decode_image(turned, fitted("crop")), pixels.swapaxes(0, 1)[2:10])


def test_crop_of_a_sliver_is_refused_before_it_is_enlarged():
    sliver = encoded(Image.new("RGB", (1, 30_000)))
    with pytest.raises(BadMedia, match="1 x 30000 pixels: too narrow to crop") as raised:
        decode_image(sliver, fitted("crop", size_px=224))
    assert raised.value.reason == "too_large"


def test_stretch_shows_all_of_the_picture_and_pads_nothing():
    halves = np.zeros((4, 16, 3), np.uint8)
    halves[:, 8:] = 200
    square = decode_image(encoded(Image.fromarray(halves)), fitted("stretch"))
    assert (square[:, 0] == 0).all()
    assert (square[:, -1] == 200).all()


@pytest.mark.reference
@pytest.mark.parametrize("file_format", ["PNG", "JPEG"])
def test_crop_equals_open_clip_to_the_bit(file_format):
    import_torch()
    transform = pytest.importorskip("open_clip", reason="open_clip is not installed").transform
    pp = fitted("crop", size_px=224)
    reference = transform.image_transform(224, is_train=False, mean=(0, 0, 0), std=(1, 1, 1))
    for height, width in ((224, 224), (375, 500), (501, 226), (100, 31), (2001, 300)):
        data = encoded(Image.fromarray(noise(height, width)), file_format)
        want = reference(Image.open(io.BytesIO(data))).numpy().transpose(1, 2, 0)
        found = decode_image(data, pp).astype(np.float32) / 255
        np.testing.assert_array_equal(found, want)
