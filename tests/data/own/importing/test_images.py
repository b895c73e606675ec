"""`fedge import images`: folders of pictures as people have them."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fedge.data.own.importing import import_images
from fedge.errors import UserError


def picture(
    path: Path, *, mode: str = "RGB", size: tuple[int, int] = (6, 4), value: int = 90, **options
) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    fill = value if mode in ("L", "P", "I;16") else (value,) * len(mode)
    Image.new(mode, size, fill).save(path, **options)
    return path


@pytest.fixture
def pets(tmp_path: Path) -> Path:
    for index, name in enumerate(("cat/a.png", "cat/b.png", "dog/c.png", "dog/d.png")):
        picture(tmp_path / "pets" / name, value=10 * index)
    return tmp_path / "pets"


def test_a_folder_per_class(pets: Path, tmp_path: Path) -> None:
    """Breaks if pictures and labels change places, or the channels do."""
    made = import_images(pets, tmp_path / "out")
    x, y = np.load(tmp_path / "out/x.npy"), np.load(tmp_path / "out/y.npy")
    assert (made.samples, x.shape, y.tolist()) == (4, (4, 3, 4, 6), [0, 0, 1, 1])
    assert x[:, 0, 0, 0].tolist() == [0, 10, 20, 30]


def test_parts_and_their_official_split(pets: Path, tmp_path: Path) -> None:
    """Breaks if test pictures count as the official training split."""
    for part in ("test", "train"):
        for name in ("cat", "dog"):
            picture(tmp_path / "parts" / part / name / "x.png", value=200 if part == "train" else 50)
    import_images(tmp_path / "parts", tmp_path / "out")
    assert np.load(tmp_path / "out/x.npy")[:, 0, 0, 0].tolist() == [200, 200, 50, 50]
    assert '"train_count": 2' in (tmp_path / "out/facts.json").read_text()


def test_pictures_are_turned_as_the_camera_says(pets: Path, tmp_path: Path) -> None:
    """Breaks if a phone's upright picture lies on its side."""
    exif = Image.Exif()
    exif[0x0112] = 6
    for name in ("cat", "dog"):
        picture(tmp_path / "turned" / name / "a.jpg", size=(6, 4), exif=exif)
    import_images(tmp_path / "turned", tmp_path / "out")
    assert np.load(tmp_path / "out/x.npy").shape == (2, 3, 6, 4)


def test_size_and_mode_make_unlike_pictures_alike(pets: Path, tmp_path: Path) -> None:
    """Breaks if a folder of a person's own, mixed pictures cannot be imported at all."""
    picture(pets / "cat/grey.png", mode="L", size=(9, 9))
    picture(pets / "cat/deep.png", mode="I;16", value=256 * 90)
    picture(pets / "dog/print.jpg", mode="CMYK", size=(20, 5))
    picture(pets / "dog/table.png", mode="P")
    import_images(pets, tmp_path / "out", size=5, mode="grey")
    x = np.load(tmp_path / "out/x.npy")
    assert x.shape == (8, 1, 5, 5)
    assert x[3].tolist() == np.full((1, 5, 5), 90).tolist()  # cat/grey is fourth: a, b, deep, grey


def truncate(pets: Path) -> None:
    whole = picture(pets / "dog/cut.png", size=(60, 40)).read_bytes()
    (pets / "dog/cut.png").write_bytes(whole[: len(whole) // 2])


BREAKS: dict[str, Callable[[Path], object]] = {
    "size": lambda pets: picture(pets / "cat/big.png", size=(60, 40)),
    "grey": lambda pets: picture(pets / "cat/grey.png", mode="L"),
    "palette": lambda pets: picture(pets / "cat/table.png", mode="P"),
    "16 bit": lambda pets: picture(pets / "cat/deep.png", mode="I;16"),
    "cmyk": lambda pets: picture(pets / "dog/print.jpg", mode="CMYK"),
    "truncated": truncate,
    "no picture": lambda pets: (pets / "dog/page.png").write_text("<html>"),
    "one class": lambda pets: shutil.rmtree(pets / "dog"),
    "parts and classes": lambda pets: picture(pets / "train/cat/a.png"),
}


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ("size", "differ in size: 6 x 4 and 60 x 40"),
        ("grey", "--mode rgb or --mode grey"),
        ("palette", "colour mode P"),
        ("16 bit", "colour mode I;16"),
        ("cmyk", "colour mode CMYK"),
        ("truncated", "cut.png cannot be read"),
        ("no picture", "page.png cannot be read"),
        ("one class", "one class, 'cat'"),
        ("parts and classes", "either parts or classes"),
    ],
)
def test_odd_pictures_are_named(pets: Path, tmp_path: Path, how: str, said: str) -> None:
    """Breaks if a wrong folder becomes data, ends in a traceback, or leaves a half-made folder."""
    BREAKS[how](pets)
    with pytest.raises(UserError, match=said) as refusal:
        import_images(pets, tmp_path / "out")
    assert "\n" not in str(refusal.value)
    assert [path.name for path in tmp_path.iterdir()] == ["pets"]


def test_broken_pictures_can_be_left_out_and_are_counted(pets: Path, tmp_path: Path) -> None:
    """Breaks if one bad file of ten thousand ends an import that its owner wanted without it, or goes unsaid."""
    truncate(pets)
    (pets / "dog/notes.txt").write_text("mine")
    made = import_images(pets, tmp_path / "out", skip_broken=True)
    assert made.samples == 4
    assert ["notes.txt" in made.notes[0], "cut.png" in made.notes[1]] == [True, True]
