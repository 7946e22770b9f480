"""Image folders: their layout, their batches, and what is wrong with them."""

import os
import zlib

import numpy as np
import pytest
import torch
from PIL import Image

from equibit import data, recipes, training
from equibit.errors import FileError, FormatError, InputError

# A machine of one core warns of two workers.
pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning")

SIZE = 28  # resized to 32 before a crop
COUNTS = {"train": {"ant": 5, "bee": 4, "cow": 2}, "val": {"ant": 2, "cow": 1}}


def picture(seed, width=37, height=45):
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


@pytest.fixture
def root(tmp_path):
    """A root with an image folder; every image is another one."""
    seed = 0
    for half, classes in COUNTS.items():
        for name, count in classes.items():
            folder = tmp_path / "imagefolder" / half / name
            folder.mkdir(parents=True)
            for index in range(count):
                seed += 1
                picture(seed, 30 + seed, 60 - seed).save(folder / f"{index}.png")
    return tmp_path


def load(root, **options):
    return data.load("imagefolder", root, **{"size": SIZE, "workers": 0, **options})


def whole(split, batch_size=4, **options):
    """Every image of a split in order, in one tensor."""
    images, labels = zip(*split.batches(data.sequential(len(split), batch_size), **options), strict=True)
    return torch.cat(images), torch.cat(labels)


# --- layout ---------------------------------------------------------------------------------------------


def test_layout(root):
    loaded = load(root)
    assert loaded.classes == data.classes("imagefolder", root) == ("ant", "bee", "cow")
    assert loaded.in_shape == (3, SIZE, SIZE)
    assert loaded.train.labels.tolist() == [0] * 5 + [1] * 4 + [2] * 2
    assert loaded.test.labels.tolist() == [0, 0, 2]  # numbered as in train
    assert (len(loaded.train), len(loaded.test)) == (11, 3)
    names = [loaded.train.file(index).relative_to(root / "imagefolder/train").as_posix() for index in range(11)]
    assert names == [f"{name}/{index}.png" for name, count in COUNTS["train"].items() for index in range(count)]
    images, labels = whole(loaded.test)
    assert images.shape == (3, 3, SIZE, SIZE)
    assert (images.dtype, labels.dtype) == (torch.uint8, torch.int64)
    assert labels.tolist() == [0, 0, 2]


def test_what_is_an_image(root, tmp_path_factory):
    ant = root / "imagefolder/train/ant"
    for name in (".hidden.png", "notes.txt", "thumbs.db", "archive.png.gz"):
        (ant / name).write_bytes(b"")
    (ant / "folder.png").mkdir()
    (root / "imagefolder/train/.git").mkdir()
    (root / "imagefolder/train/README").write_text("not a class")
    assert len(load(root).train) == 11
    picture(50).save(ant / "upper.JPEG", format="JPEG")
    (ant / "link.png").symlink_to(ant / "0.png")
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    picture(51).save(elsewhere / "other.webp")
    (root / "imagefolder/train/dog").symlink_to(elsewhere, target_is_directory=True)
    loaded = load(root)
    assert loaded.classes == ("ant", "bee", "cow", "dog")
    assert len(loaded.train) == 14
    images, _ = whole(loaded.train)
    assert torch.equal(images[0], images[5])  # 0.png and its link


def test_names_that_are_not_utf8(root):
    ant = root / "imagefolder/train/ant"
    (ant / "0.png").rename(ant / os.fsdecode(b"\xff \xe4.png"))
    assert len(whole(load(root).train)[0]) == 11


def test_test_folder_in_place_of_val(root):
    (root / "imagefolder/val").rename(root / "imagefolder/test")
    assert len(load(root).test) == 3


def test_path(root):
    (root / "imagefolder").rename(root / "pets")
    assert len(load(root, path="pets").train) == 11
    assert len(load("/nowhere", path=str(root / "pets")).train) == 11
    with pytest.raises(FileError, match=r"cannot read .*imagefolder/train: No such file.*EQUIBIT_DATA.*data.path"):
        load(root)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (lambda f: (f / "train").rename(f / "training"), FileError, r"cannot read .*/train: No such file"),
        (lambda f: (f / "val").rename(f / "valid"), FileError, r"cannot read .*/val: No such file"),
        (lambda f: (f / "train/zebra").mkdir(), FormatError, r"train/zebra: found no images, expected .*\.jpeg \.jpg"),
        (lambda f: (f / "val/bee").mkdir(), FormatError, r"val/bee: found no images"),
        (lambda f: (f / "val/ant").rename(f / "val/aunt"), FormatError, r"val/aunt: found the class 'aunt'.*train"),
        (lambda f: (f / "val").rename(f / "train/val"), FormatError, "train/val: found no images"),
    ],
)
def test_wrong_layouts(change, error, message, root):
    change(root / "imagefolder")
    with pytest.raises(error, match=message) as caught:
        load(root)
    assert "\n" not in str(caught.value)
    assert not all(result.checksum_ok for result in data.check("imagefolder", root))


def test_no_classes(tmp_path):
    for half in ("train", "val"):
        (tmp_path / "imagefolder" / half).mkdir(parents=True)
        picture(0).save(tmp_path / "imagefolder" / half / "0.png")
    with pytest.raises(FormatError, match="train: found no folders, expected one for each class"):
        load(tmp_path)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": 0}, "data.size is 0"),
        ({"workers": -1}, "data.workers -1; they must be"),
        ({"resize": "squared"}, "unknown data.resize: 'squared'. Did you mean 'square'?"),
        ({"broken": "ignore"}, "unknown data.broken: 'ignore'.*Known: raise, skip"),
        ({"colour": True}, "data.colour is set, but imagefolder has no option 'colour'"),
    ],
)
def test_wrong_options(options, message, root):
    with pytest.raises(InputError, match=message):
        load(root, **options)


def test_check_and_fetch(root, tmp_path_factory):
    results = data.check("imagefolder", root)
    assert [(r.present, r.checksum_ok, r.images, r.message) for r in results] == [
        (True, True, 11, "3 classes of 2 to 5 images"),
        (True, True, 3, "2 classes of 1 to 2 images"),
    ]
    empty = tmp_path_factory.mktemp("empty")
    assert [(r.present, r.checksum_ok, r.images) for r in data.check("imagefolder", empty)] == [
        (False, False, None)
    ] * 2
    with pytest.raises(FileError, match=r"cannot be downloaded.*train/CLASS/ and val/CLASS/.*image-net\.org"):
        data.fetch("imagefolder", empty)


# --- batches --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("augment", ["none", "random_resized_crop", "resize_crop"])
def test_an_image_depends_on_seed_and_index_alone(augment, root):
    split = load(root).train
    images, labels = whole(split, augment=augment, seed=3)
    assert torch.equal(labels, split.labels)
    order = torch.randperm(11, generator=torch.Generator().manual_seed(0))
    for workers, batch_size in ((0, 1), (1, 5), (3, 2)):
        found = list(load(root, workers=workers).train.batches(order.split(batch_size), augment=augment, seed=3))
        assert torch.equal(torch.cat([batch for batch, _ in found]), images[order])
        assert torch.equal(torch.cat([batch for _, batch in found]), labels[order])
    again, _ = whole(split, augment=augment, seed=4)
    assert torch.equal(images, again) == (augment == "none")
    assert (images != again).any(dim=(1, 2, 3)).all() == (augment != "none")


def test_images_draw_independently(root):
    for path in (root / "imagefolder/train").glob("*/*.png"):
        picture(0).save(path)
    images, _ = whole(load(root).train, augment="random_resized_crop", seed=0)
    assert len(images.flatten(1).unique(dim=0)) == 11


def test_fewer_training_images(root):
    whole_set = load(root, broken="skip")
    few = whole_set.with_train_images(6)
    assert few.train_labels.bincount().tolist() == [3, 2, 1]  # of 5, 4 and 2
    files = [few.train.file(index) for index in range(6)]
    assert files == sorted(files)
    before, _ = whole(whole_set.train)
    after, labels = whole(few.train)
    place = [next(i for i in range(11) if whole_set.train.file(i) == file) for file in files]
    assert torch.equal(after, before[place])
    assert torch.equal(labels, few.train_labels)
    few.train.skipped.append("a file")
    assert (whole_set.train.skipped, len(few.test)) == ([], 3)


def test_part_of_a_batch(root):
    split = load(root).train
    indices, options = data.sequential(11, 4), {"augment": "resize_crop", "seed": 1}
    for (images, labels), (some, names) in zip(
        split.batches(indices, **options), split.batches(indices, part=slice(1, 3), **options), strict=True
    ):
        assert torch.equal(images[1:3], some)
        assert torch.equal(labels[1:3], names)


def test_global_random_numbers_are_left_alone(root):
    before = torch.get_rng_state()
    whole(load(root).train, augment="resize_crop", seed=1)
    assert torch.equal(torch.get_rng_state(), before)


def test_kinds_that_do_not_fit(root):
    with pytest.raises(InputError, match="'shift' does not fit image files; these do: none, random_resized_crop, resi"):
        next(load(root).train.batches([torch.tensor([0])], augment="shift"))
    with pytest.raises(InputError, match="'resize_crop' does not fit images in memory; these do: none, shift, crop_f"):
        next(data.load("digits").train.batches([torch.tensor([0])], augment="resize_crop"))
    with pytest.raises(InputError, match="images of imagefolder are read in batches"):
        _ = load(root).test_images


def test_workers_by_default_leave_a_core(root):
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    assert data.load("imagefolder", root).train._workers == min(16, cores - 1)


# --- broken files ---------------------------------------------------------------------------------------


def truncated(path):
    picture(1, 200, 200).save(path, format="JPEG")
    path.write_bytes(path.read_bytes()[:-3000])


def bomb(path):
    """A PNG header of 3.6 gigapixels."""
    picture(1).save(path, format="PNG")
    content = bytearray(path.read_bytes())
    content[16:24] = (60_000).to_bytes(4, "big") * 2
    content[29:33] = zlib.crc32(content[12:29]).to_bytes(4, "big")
    path.write_bytes(content)


BROKEN = {
    "truncated": (truncated, "truncated"),
    "text": (lambda path: path.write_text("this is no image"), "found no known image format"),
    "empty": (lambda path: path.write_bytes(b""), "found no known image format"),
    "bomb": (bomb, "decompression bomb"),
    "postscript": (lambda path: picture(1).save(path, format="EPS"), "found no known image format"),
    "broken link": (lambda path: path.symlink_to("nowhere.png"), "No such file"),
    "random bytes": (
        lambda path: path.write_bytes(b"\xff\xd8\xff" + np.random.default_rng(0).bytes(999)),
        "found no known image format",
    ),
}


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_image_is_named(case, workers, root):
    path = root / "imagefolder/train/bee/1.png"
    make, message = BROKEN[case]
    path.unlink()
    make(path)
    with pytest.raises(FormatError, match=rf"train/bee/1\.png: .*{message}.*set data\.broken to skip") as caught:
        whole(load(root, workers=workers).train)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("pixels", [700, 1200])  # above 1000 Pillow warns, above 2000 it raises
def test_too_many_pixels_are_refused_before_they_are_decoded(pixels, root, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", pixels)
    with pytest.raises(FormatError, match="decompression bomb"):
        whole(load(root).train)


def test_skipped_images_are_counted_and_the_rest_is_unchanged(root):
    expected, labels = whole(load(root).train, augment="resize_crop", seed=2)
    for name in ("ant/1.png", "bee/0.png"):
        (root / "imagefolder/train" / name).write_bytes(b"")
    loaded = load(root, broken="skip")
    moved = loaded.train.to("cpu")
    assert loaded.train.skipped == []
    for _ in range(2):
        batches = list(moved.batches(data.sequential(11, 4), augment="resize_crop", seed=2))
        assert [len(images) for images, _ in batches] == [3, 3, 3]
    rest = [index for index in range(11) if index not in (1, 5)]
    assert torch.equal(torch.cat([images for images, _ in batches]), expected[rest])
    assert torch.equal(torch.cat([numbers for _, numbers in batches]), labels[rest])
    folder = root / "imagefolder/train"
    assert moved.skipped == loaded.train.skipped == [str(folder / "ant/1.png"), str(folder / "bee/0.png")]
    assert loaded.test.skipped == []


@pytest.mark.parametrize("workers", [0, 2])
def test_a_batch_of_which_nothing_remains_is_left_out(workers, root):
    for path in (root / "imagefolder/train/bee").iterdir():
        path.write_bytes(b"")
    batches = list(load(root, broken="skip", workers=workers).train.batches(data.sequential(11, 1)))
    assert [labels.tolist() for _, labels in batches] == [[0]] * 5 + [[2]] * 2
    assert [len(images) for images, _ in batches] == [1] * 7


# --- recipes and runs -----------------------------------------------------------------------------------


def recipe(**changes):
    base = recipes.load("digits-digits_net-bi_half-1w32a")
    common = {"model.in_shape": None, "model.num_classes": 3, "data.name": "imagefolder", "data.augment": "resize_crop"}
    rest = {"data.size": 8, "data.workers": 0, "data.mean": None, "data.std": None, "data.batch_size": 4}
    return recipes.override(base, {**common, **rest, "train.epochs": 1, **changes})


def test_a_run(root, tmp_path, monkeypatch):
    monkeypatch.setenv("EQUIBIT_DATA", str(root))
    summary = training.train(recipe(), tmp_path / "run")
    assert summary["test_n"] == 3
    assert training.load_run(tmp_path / "run").recipe.model.in_shape == (3, 8, 8)
    with pytest.raises(InputError, match="num_classes is 10, but imagefolder has 3 classes"):
        training.train(recipe(**{"model.num_classes": 10}), tmp_path / "other")


def test_recipes_know_what_fits():
    assert recipe().data.options == {"size": 8, "workers": 0}
    assert recipes.load("digits-digits_net-float").data.options == {}
    with pytest.raises(
        InputError, match=r"data.augment is 'crop_flip', which does not fit imagefolder; these do: none"
    ):
        recipe(**{"data.augment": "crop_flip"})
    with pytest.raises(InputError, match=r"data.size is set, but digits has no option 'size'; its options: none"):
        recipes.override(recipes.load("digits-digits_net-float"), {"data.size": 8})
    for key, value in {"data.broken": "ignore", "data.resize": "none", "data.size": 0, "data.workers": -1}.items():
        with pytest.raises(InputError, match=key):
            recipe(**{key: value})


def test_shape_without_loading():
    assert data.in_shape("imagefolder") == (3, 224, 224)
    assert data.in_shape("imagefolder", size=64, workers=1) == (3, 64, 64)
    assert data.in_shape("mnist") == (1, 28, 28)
