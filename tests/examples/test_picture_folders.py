"""Backgrounds and occluders of a user: folders that are read, and refused before work starts."""

import cv2
import numpy as np
import pytest
from PIL import Image

from acae_nb.examples.crops import Augmentation
from acae_nb.examples.picture_folders import PictureFolder, augmentation_from, picture_folders


@pytest.fixture
def folder(tmp_path):
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 256, (40, 60, 4), np.uint8), "RGBA").save(tmp_path / "cup.png")
    (tmp_path / "deeper").mkdir()
    Image.fromarray(np.full((300, 900, 3), (200, 10, 90), np.uint8)).save(tmp_path / "deeper/room.JPG", "JPEG")
    (tmp_path / "notes.txt").write_text("no picture")
    return tmp_path


def test_pictures_are_those_that_another_library_reads(folder):
    cup, room = PictureFolder(folder)
    assert (PictureFolder(folder, cut_outs=True)[0] == np.asarray(Image.open(folder / "cup.png"))).all()
    assert room.shape == (171, 512, 3) and abs(room.astype(int) - (200, 10, 90)).max() <= 3
    assert cup.shape == (40, 60, 3)


REFUSED = {
    "background without pictures": ({"background": 0.7}, "^background: expected 0 without pictures of backgrounds"),
    "a folder that is not there": ({"backgrounds": "nowhere"}, "nowhere: expected pictures .*, found none"),
    "a folder of other things": ({"occluders": "deeper"}, "deeper: expected pictures ..png., found none"),
    "cut-outs without alpha": ({"occluders": "opaque"}, "opaque/x.png: expected a PNG of colours with alpha"),
    "a misspelt value": ({"ocluders": "."}, "found 'ocluders' .did you mean 'occluders'"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_used_is_refused_by_name(folder, monkeypatch, case):
    (folder / "opaque").mkdir()
    cv2.imwrite(str(folder / "opaque/x.png"), np.zeros((4, 4, 3), np.uint8))
    monkeypatch.chdir(folder)
    values, message = REFUSED[case]
    with pytest.raises(ValueError, match=message):
        augmentation_from(values)


def test_a_damaged_picture_is_named(folder):
    (folder / "bad.jpg").write_bytes(b"\xff\xd8 no")
    with pytest.raises(ValueError, match="bad.jpg: expected a picture"):
        PictureFolder(folder)[0]


def test_null_is_no_folder(folder):
    assert augmentation_from({"background": 0.0, "backgrounds": None, "occluders": None}) == Augmentation()
    assert picture_folders({"backgrounds": str(folder), "occluders": None}) == [folder]
