"""Augmentation in batch against one image at a time."""

import pytest
import torch

from equibit import data
from equibit.errors import InputError


def batch(shape=(16, 3, 9, 7), dtype=torch.uint8):
    generator = torch.Generator().manual_seed(1)
    return torch.randint(1, 256, shape, generator=generator).to(dtype)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def slow_window(image, padding, top, left, flip):
    """One image: pad, crop, mirror, pixel by pixel."""
    _, height, width = image.shape
    out = torch.zeros_like(image)
    for row in range(height):
        for column in range(width):
            source_row = row + top - padding
            source_column = (width - 1 - column if flip else column) + left - padding
            if 0 <= source_row < height and 0 <= source_column < width:
                out[:, row, column] = image[:, source_row, source_column]
    return out


def slow_augment(images, kind, generator):
    padding = {"shift": 2, "crop_flip": 4}[kind]
    top, left = torch.randint(2 * padding + 1, (2, len(images)), generator=generator)
    flip = torch.zeros(len(images)) > 0
    if kind == "crop_flip":
        flip = torch.rand(len(images), generator=generator) < 0.5
    return torch.stack(
        [slow_window(image, padding, *where) for image, *where in zip(images, top, left, flip, strict=True)]
    )


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32, torch.bfloat16, torch.int64])
@pytest.mark.parametrize("kind", ["shift", "crop_flip"])
@pytest.mark.parametrize("shape", [(16, 3, 9, 7), (5, 1, 1, 1), (0, 3, 8, 8)])
def test_augment_equals_the_slow_reference(kind, dtype, shape):
    images = batch(shape, dtype)
    result = data.augment(images, kind, seeded())
    assert result.dtype == dtype
    assert result.shape == images.shape
    if len(images):
        assert torch.equal(result, slow_augment(images, kind, seeded()))


def test_augment_kinds_and_errors():
    assert data.kinds() == ["crop_flip", "none", "random_resized_crop", "resize_crop", "shift"]
    with pytest.raises(InputError, match=r"unknown augmentation 'crop-flip'. Did you mean 'crop_flip'\?"):
        data.augment(batch(), "crop-flip", seeded())
    with pytest.raises(InputError, match=r"shape \(3, 9, 7\): expected \(batch, channels, height, width\)"):
        data.augment(batch()[0], "shift", seeded())


def test_augment_none_draws_nothing():
    images, generator = batch(), seeded()
    before = generator.get_state()
    assert data.augment(images, "none", generator) is images
    assert torch.equal(generator.get_state(), before)


@pytest.mark.parametrize("kind", ["shift", "crop_flip"])
def test_augment_depends_on_the_generator_alone_and_leaves_its_input(kind):
    images = batch()
    original = images.clone()
    torch.manual_seed(0)
    first = data.augment(images, kind, seeded())
    torch.manual_seed(1)
    assert torch.equal(data.augment(images, kind, seeded()), first)
    assert not torch.equal(data.augment(images, kind, seeded(1)), first)
    assert torch.equal(images, original)


def test_augment_draws_every_offset_and_both_mirrors():
    image = torch.zeros(1, 1, 9, 9, dtype=torch.uint8)
    image[..., 4, 4] = 255
    image[..., 4, 5] = 128  # on the right of the bright pixel unless mirrored
    shifted = data.augment(image.expand(2000, -1, -1, -1), "shift", seeded())
    assert shifted.view(2000, -1).argmax(1).unique().numel() == 25
    flipped = data.augment(image.expand(2000, -1, -1, -1), "crop_flip", seeded())
    places = (flipped == 255).nonzero()
    assert len({(row, column) for _, _, row, column in places.tolist()}) == 81
    mirrored = flipped.view(2000, 9, 9)[:, :, :-1].eq(128) & flipped.view(2000, 9, 9)[:, :, 1:].eq(255)
    assert 0.4 < mirrored.any((1, 2)).float().mean() < 0.6


def test_augment_takes_channels_last():
    images = batch().to(memory_format=torch.channels_last)
    assert torch.equal(data.augment(images, "shift", seeded()), data.augment(batch(), "shift", seeded()))


def test_normalize():
    images = torch.tensor([[[[0, 255]], [[51, 102]]]], dtype=torch.uint8)
    expected = torch.tensor([[[[-1.0, 1.0]], [[0.0, 0.4]]]])
    result = data.normalize(images, (0.5, 0.2), (0.5, 0.5))
    assert result.dtype == torch.float32
    assert torch.allclose(result, expected)
    tensors = torch.tensor([0.5, 0.2]), torch.tensor([0.5, 0.5])
    assert torch.equal(data.normalize(images, *tensors), result)


def test_normalize_errors():
    with pytest.raises(InputError, match=r"dtype torch.float32: expected torch.uint8"):
        data.normalize(batch(dtype=torch.float32), (0.5,) * 3, (0.5,) * 3)
    with pytest.raises(InputError, match="1 values of mean or std for images of 3 channels"):
        data.normalize(batch(), (0.5,), (0.5,))
    with pytest.raises(InputError, match="expected"):
        data.normalize(batch()[0], (0.5,), (0.5,))


@pytest.mark.parametrize("kind", data.entry("digits").augments)
def test_one_graph_of_augmentation_and_normalisation(kind):
    images, mean, std = batch(), torch.tensor([0.5, 0.4, 0.3]), torch.tensor([0.2, 0.3, 0.4])

    def prepare(images, drawn):
        return data.normalize(data.apply(images, kind, drawn), mean, std)

    # "eager" traces as "inductor" does, and needs no compiler; fullgraph raises where Python must look at a value.
    compiled = torch.compile(prepare, fullgraph=True, backend="eager")
    for seed in range(2):
        drawn = data.draw(kind, len(images), seeded(seed))
        assert torch.equal(compiled(images, drawn), prepare(images, drawn))
        assert torch.equal(data.apply(images, kind, drawn), data.augment(images, kind, seeded(seed)))


def test_draw():
    assert data.draw("none", 5, seeded()) is None
    shift, crop = data.draw("shift", 500, seeded()), data.draw("crop_flip", 500, seeded())
    assert (int(shift.top.min()), int(shift.top.max()), shift.flip) == (0, 4, None)
    assert (int(crop.left.min()), int(crop.left.max()), crop.flip.dtype) == (0, 8, torch.bool)
    with pytest.raises(InputError, match="'resize_crop' does not fit images in memory; these do: none, shift, crop"):
        data.draw("resize_crop", 5, seeded())


@pytest.mark.gpu
@pytest.mark.parametrize("kind", ["shift", "crop_flip"])
def test_augment_on_cuda(kind):
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    images = batch()
    on_device = data.augment(images.cuda(), kind, seeded())
    assert on_device.is_cuda
    assert torch.equal(on_device.cpu(), data.augment(images, kind, seeded()))
    generator = torch.Generator("cuda").manual_seed(0)
    assert data.augment(images.cuda(), kind, generator).is_cuda
