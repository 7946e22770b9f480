"""Splits in memory: the batches a training sees."""

import pytest
import torch

from equibit import data
from equibit.data.dataset import spread_order
from equibit.errors import InputError


def split(count=23):
    generator = torch.Generator().manual_seed(7)
    images = torch.randint(0, 256, (count, 3, 9, 8), generator=generator, dtype=torch.uint8)
    return data.TensorSplit(images, torch.arange(count) % 10)


def test_batches_are_the_images_that_were_asked_for():
    half = split()
    order = torch.randperm(23, generator=torch.Generator().manual_seed(0))
    batches = list(half.batches(order.split(5)))
    assert [len(images) for images, _ in batches] == [5, 5, 5, 5, 3]
    assert torch.equal(torch.cat([images for images, _ in batches]), half.images[order])
    assert torch.equal(torch.cat([labels for _, labels in batches]), half.labels[order])
    assert (len(half), half.skipped) == (23, [])


@pytest.mark.parametrize("kind", data.entry("digits").augments)
def test_batches_are_augmented_in_order_from_one_generator(kind):
    half = split()
    order = torch.randperm(23, generator=torch.Generator().manual_seed(0)).split(6)
    generator = torch.Generator().manual_seed(2**62 + 5)
    for index, (images, labels) in zip(order, half.batches(order, augment=kind, seed=2**62 + 5), strict=True):
        assert torch.equal(images, data.augment(half.images[index], kind, generator))
        assert torch.equal(labels, half.labels[index])


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # inductor's own
def test_a_compiled_split_gives_the_same_batches():
    half, order, options = split(), data.sequential(23, 6), {"augment": "crop_flip", "seed": 3}
    batches = zip(half.batches(order, **options), half.compiled().batches(order, **options), strict=True)
    for (images, labels), (same_images, same_labels) in batches:  # the last batch has another size
        assert torch.equal(images, same_images)
        assert torch.equal(labels, same_labels)


def test_part_of_a_batch_is_what_it_is_in_the_whole():
    half, order, options = split(), data.sequential(23, 6), {"augment": "crop_flip", "seed": 1}
    parts = [slice(0, 3), slice(3, 6)]
    wholes = list(half.batches(order, **options))
    shares = [list(half.batches(order, part=part, **options)) for part in parts]
    for (images, labels), *pieces in zip(wholes, *shares, strict=True):
        assert torch.equal(torch.cat([piece for piece, _ in pieces]), images)
        assert torch.equal(torch.cat([piece for _, piece in pieces]), labels)


def test_labels_stay_on_the_cpu():
    half = split()
    moved = half.to("meta")
    assert (moved.images.device.type, moved.labels.device.type, len(moved)) == ("meta", "cpu", 23)
    assert half.images.device.type == "cpu"


def test_sequential():
    assert [index.tolist() for index in data.sequential(7, 3)] == [[0, 1, 2], [3, 4, 5], [6]]
    assert [index.tolist() for index in data.sequential(2, 3)] == [[0, 1]]


def test_a_label_for_every_image():
    with pytest.raises(InputError, match="3 images with 2 labels"):
        data.TensorSplit(torch.zeros(3, 1, 2, 2, dtype=torch.uint8), torch.zeros(2, dtype=torch.int64))


def test_tensors_of_a_data_set():
    digits = data.load("digits")
    assert digits.train_images is digits.train.images
    assert digits.test_labels is digits.test.labels


@pytest.mark.gpu
def test_splits_on_cuda():
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    half = split()
    moved, order = half.to("cuda"), data.sequential(23, 6)
    assert moved.labels.device.type == "cpu"
    for (images, labels), (same, names) in zip(moved.batches(order), half.batches(order), strict=True):
        assert images.is_cuda
        assert labels.is_cuda
        assert torch.equal(images.cpu(), same)
        assert torch.equal(labels.cpu(), names)
    generator = torch.Generator("cuda").manual_seed(4)
    for index, (images, _) in zip(order, moved.batches(order, augment="crop_flip", seed=4), strict=True):
        assert torch.equal(images, data.augment(moved.images[index.cuda()], "crop_flip", generator))


def test_spread_order_keeps_the_classes_in_proportion():
    labels = torch.arange(3).repeat_interleave(torch.tensor([60, 30, 10]))
    order = spread_order(labels)
    assert order.sort().values.tolist() == list(range(100))
    for count in (10, 20, 50, 90):
        assert labels[order[:count]].bincount().tolist() == [0.6 * count, 0.3 * count, 0.1 * count]
    for count in range(1, 100):  # half an image a class, and what a tie of places puts off
        expected = torch.tensor([0.6, 0.3, 0.1]) * count
        assert (labels[order[:count]].bincount(minlength=3) - expected).abs().max() <= 1.5
    assert order[:10].tolist() != order[:10].sort().values.tolist()


def test_fewer_training_images():
    whole = data.load("digits")
    few, more = whole.with_train_images(100), whole.with_train_images(200)
    assert few.train_labels.bincount().tolist() == pytest.approx([10] * 10, abs=1)
    kept = {image.numpy().tobytes() for image in few.train_images}
    assert kept <= {image.numpy().tobytes() for image in more.train_images}
    assert (few.mean, few.std, len(few.test)) == (whole.mean, whole.std, len(whole.test))
    for image, label in zip(few.train_images, few.train_labels, strict=True):
        same = (whole.train_images == image).flatten(1).all(dim=1)
        assert label in whole.train_labels[same]
    everything = whole.with_train_images(len(whole.train))
    assert torch.equal(everything.train_images, whole.train_images)
    assert torch.equal(everything.train_labels, whole.train_labels)


@pytest.mark.parametrize("count", [0, 1438])
def test_more_training_images_than_there_are(count):
    with pytest.raises(InputError, match=f"train_images is {count}, but digits has 1437"):
        data.load("digits").with_train_images(count)
