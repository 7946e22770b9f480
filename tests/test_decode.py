"""Decoding and cropping image files, against slow or independent references."""

import math
import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from equibit.data import decode
from equibit.data.decode import Decoder
from equibit.errors import FormatError

SIDE, SIZE = 32, 28


def pixels(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def saved(array, path, **options):
    Image.fromarray(array).save(path, **options)
    return path


def decoded(path, kind="none", seed=0, size=SIZE, resize="shorter_side"):
    return Decoder(size, resize)(path, kind, np.random.default_rng(seed))


# --- crops ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("resize", decode.RESIZES)
def test_evaluation_takes_the_centre(resize, tmp_path):
    array = pixels(SIDE, SIDE)  # needs no resizing
    found = decoded(saved(array, tmp_path / "a.png"), resize=resize)
    assert np.array_equal(found, array[2:30, 2:30].transpose(2, 0, 1))
    assert found.flags.c_contiguous


@pytest.mark.parametrize(("height", "width"), [(48, 100), (100, 48), (5, 7), (1, 1), (3, 400)])
def test_resizing(height, width, tmp_path):
    path = saved(pixels(height, width), tmp_path / "a.png")
    square = Image.open(path).resize((SIDE, SIDE), Image.Resampling.BILINEAR)
    assert np.array_equal(decoded(path, resize="square"), np.asarray(square)[2:30, 2:30].transpose(2, 0, 1))
    tall, wide = (int(SIDE * side / min(height, width)) for side in (height, width))
    kept = np.asarray(Image.open(path).resize((wide, tall), Image.Resampling.BILINEAR))
    top, left = round((tall - SIZE) / 2), round((wide - SIZE) / 2)
    assert np.array_equal(decoded(path), kept[top : top + SIZE, left : left + SIZE].transpose(2, 0, 1))


def test_the_usual_margin_on_imagenet(tmp_path):
    array = pixels(256, 256)
    assert np.array_equal(decoded(saved(array, tmp_path / "a.png"), size=224), array[16:240, 16:240].transpose(2, 0, 1))


def test_resize_crop_takes_every_place_and_both_mirrors(tmp_path):
    array = pixels(SIDE, SIDE)
    path = saved(array, tmp_path / "a.png")
    windows = {}
    for top in range(5):
        for left in range(5):
            window = array[top : top + SIZE, left : left + SIZE].transpose(2, 0, 1)
            windows[window.tobytes()] = (top, left, False)
            windows[window[:, :, ::-1].tobytes()] = (top, left, True)
    found = [windows[decoded(path, "resize_crop", seed).tobytes()] for seed in range(600)]
    counts = {place: found.count(place) for place in windows.values()}
    # 50 places, 12 draws each on average: a place has none with probability 6e-6, above 36 less.
    assert 0 < min(counts.values()) <= max(counts.values()) < 36


def test_random_resized_crop_is_a_resized_box_of_the_image(tmp_path):
    path = saved(pixels(60, 50), tmp_path / "a.png")
    for seed in range(20):
        random = np.random.default_rng(seed)
        box = decode.random_box(50, 60, random)
        expected = np.asarray(Image.open(path).crop(box).resize((SIZE, SIZE), Image.Resampling.BILINEAR))
        if random.random() < 0.5:
            expected = expected[:, ::-1]
        assert np.array_equal(decoded(path, "random_resized_crop", seed), expected.transpose(2, 0, 1))


@given(width=st.integers(1, 700), height=st.integers(1, 700), seed=st.integers(0, 2**63))
def test_boxes_lie_in_the_image(width, height, seed):
    left, upper, right, lower = decode.random_box(width, height, np.random.default_rng(seed))
    assert 0 <= left < right <= width
    assert 0 <= upper < lower <= height


def reference_boxes(width, height, count):
    """Area and aspect of boxes by rejection, all at once: ten draws nearly always fit in an image like this."""
    random = np.random.default_rng(99)
    area, aspect = random.uniform(0.08, 1, count), np.exp(random.uniform(math.log(3 / 4), math.log(4 / 3), count))
    wide, tall = np.sqrt(area * width * height * aspect), np.sqrt(area * width * height / aspect)
    fits = (wide <= width) & (tall <= height)
    return area[fits], aspect[fits]


def largest_distance(a, b):
    """The Kolmogorov-Smirnov statistic of two samples."""
    points = np.concatenate([a, b])
    return np.abs(
        *(np.searchsorted(np.sort(a), points)[None] / len(a) - np.searchsorted(np.sort(b), points) / len(b))
    ).max()


@pytest.mark.parametrize(("width", "height"), [(1000, 1000), (900, 1300)])
def test_distribution_of_boxes(width, height):
    random, count = np.random.default_rng(0), 4000
    left, upper, right, lower = np.array([decode.random_box(width, height, random) for _ in range(count)]).T
    area, aspect = (right - left) * (lower - upper) / (width * height), (right - left) / (lower - upper)
    for found, expected in zip((area, aspect), reference_boxes(width, height, 40_000), strict=True):
        # 1.95 * sqrt(1/n + 1/m) is exceeded with probability 0.001.
        assert largest_distance(found, expected) < 1.95 * math.sqrt(1 / count + 1 / len(expected))
    for start, room in ((left, width - (right - left)), (upper, height - (lower - upper))):
        place = (start[room > 50] / room[room > 50]).mean()
        assert abs(place - 0.5) < 4 * math.sqrt(1 / 12 / count)  # four standard deviations of a uniform mean


@pytest.mark.parametrize(("size", "box"), [((1000, 10), (493, 0, 506, 10)), ((10, 1000), (0, 493, 10, 506))])
def test_images_into_which_no_box_fits(size, box):
    assert decode.random_box(*size, np.random.default_rng(0)) == box


# --- modes ----------------------------------------------------------------------------------------------


def test_modes_become_rgb(tmp_path):
    grey = pixels(SIDE, SIDE)[:, :, 0]
    expected = np.repeat(grey[:, :, None], 3, axis=2)
    for name, image in {
        "grey": Image.fromarray(grey),
        "alpha": Image.merge("LA", (Image.fromarray(grey), Image.new("L", (SIDE, SIDE), 7))),
        "rgba": Image.merge("RGBA", (*[Image.fromarray(grey)] * 3, Image.new("L", (SIDE, SIDE), 0))),
        "palette": Image.fromarray(grey).convert("P"),
        "16": Image.fromarray(grey.astype(np.uint16) * 256 + 255 - grey),
    }.items():
        image.save(tmp_path / f"{name}.png")
        assert np.array_equal(np.asarray(decode.read(tmp_path / f"{name}.png")), expected), name
    for name, mode in (("16", "I;16"), ("palette", "P"), ("alpha", "LA")):
        with Image.open(tmp_path / f"{name}.png") as image:
            assert image.mode == mode


def test_two_colours_and_transparent_palettes(tmp_path):
    black_white = np.arange(SIDE * SIDE).reshape(SIDE, SIDE) % 3 == 0
    Image.fromarray(black_white).save(tmp_path / "1.png")
    assert np.array_equal(np.asarray(decode.read(tmp_path / "1.png"))[:, :, 1], black_white * np.uint8(255))
    image = Image.fromarray(pixels(SIDE, SIDE)[:, :, 0]).convert("P")
    image.save(tmp_path / "p.png", transparency=bytes(range(256)))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert decode.read(tmp_path / "p.png").mode == "RGB"
    assert caught == []


def test_cmyk(tmp_path):
    for name, (cyan, magenta, yellow, black), colour in (
        ("red", (0, 255, 255, 0), (255, 0, 0)),
        ("black", (0, 0, 0, 255), (0, 0, 0)),
    ):
        Image.new("CMYK", (SIDE, SIDE), (cyan, magenta, yellow, black)).save(tmp_path / f"{name}.jpg")
        found = np.asarray(decode.read(tmp_path / f"{name}.jpg")).astype(int)
        assert np.abs(found - colour).max() <= 4  # JPEG is not exact


def test_exif_orientation_is_not_applied(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by 90 degrees
    saved(pixels(20, 40), tmp_path / "a.jpg", exif=exif)
    assert decode.read(tmp_path / "a.jpg").size == (40, 20)


def test_a_png_named_jpg(tmp_path):
    array = pixels(SIDE, SIDE)
    assert np.array_equal(np.asarray(decode.read(saved(array, tmp_path / "a.JPEG", format="PNG"))), array)


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "BMP", "PPM"])
def test_every_truncation_is_an_error_or_an_image(format, tmp_path):
    content = saved(pixels(24, 24), tmp_path / "whole", format=format).read_bytes()
    errors = 0
    for length in range(0, len(content), max(1, len(content) // 40)):
        (tmp_path / "cut").write_bytes(content[:length])
        try:
            assert decode.read(tmp_path / "cut").size == (24, 24)
        except FormatError:
            errors += 1
    assert errors >= 38
