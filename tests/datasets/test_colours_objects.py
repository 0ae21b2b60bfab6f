import cv2
import numpy as np
import pytest

from acae_nb.datasets.colours import (
    CORRECTIONS,
    Recoloured,
    balanced_and_brightened,
    brightened,
    dark_mupots,
    recoloured,
    white_balanced,
)
from acae_nb.datasets.native import ImageFile
from acae_nb.datasets.native_files import NativeError
from acae_nb.datasets.objects import cut_object, palette_numbers, pictures, voc_objects, write_pictures
from acae_nb.examples.images import encode_jpeg


def picture(cast=(1, 1, 1), seed=0):
    values = cv2.resize(
        np.random.default_rng(seed).integers(20, 200, (6, 8, 1), dtype=np.uint8),
        (64, 48),
        interpolation=cv2.INTER_CUBIC,
    )[..., None].repeat(3, 2)
    return (values * np.array(cast)).clip(0, 255).astype(np.uint8)


@pytest.mark.parametrize("cast", [(0.7, 1, 0.7), (1, 0.95, 0.7), (0.8, 0.8, 1)])
def test_white_balance_takes_the_cast_away(cast):
    def chroma(image):
        return np.abs(cv2.cvtColor(image.astype(np.float32) / 255, cv2.COLOR_RGB2LAB)[..., 1:].mean((0, 1))).max()

    assert chroma(white_balanced(picture(cast))) < 0.2 * chroma(picture(cast))


def test_white_balance_leaves_grey_alone():
    assert abs(white_balanced(picture()).astype(int) - picture()).max() <= 1
    assert white_balanced(np.zeros((4, 4, 3), np.uint8)).max() == 0


def test_gamma_against_powers():
    image = np.random.default_rng(0).integers(0, 256, (20, 20, 3), dtype=np.uint8)
    for gamma in (0.67, 1.0, 2.0):
        np.testing.assert_array_equal(brightened(image, gamma), np.round(255 * (image / 255) ** gamma))
    for bad in (0, -1, np.nan):
        with pytest.raises(ValueError, match="gamma"):
            brightened(image, bad)


def test_rows_are_corrected_when_loaded(tmp_path):
    (tmp_path / "a.jpg").write_bytes(encode_jpeg(picture((0.7, 1, 0.7))))
    source = ImageFile(tmp_path / "a.jpg")
    [(example, seen)] = recoloured([("row", source)], "balanced_and_brightened")
    assert (
        example == "row"
        and seen.size == source.size
        and seen.path == source.path
        and (seen.load() == balanced_and_brightened(source.load())).all()
    )
    assert seen.jpeg() != source.jpeg() and set(CORRECTIONS) == {
        "white_balanced",
        "brightened",
        "balanced_and_brightened",
    }
    with pytest.raises(ValueError, match="recoloured: expected one of white_balanced, .*found 'sepia'"):
        recoloured([], "sepia")

    class Row:
        def __init__(self, sequence):
            self.sequence = sequence

    assert [
        isinstance(p, Recoloured)
        for _, p in dark_mupots(
            [(Row("TS1"), source), (Row("TS5"), source), (Row("TS6"), source), (Row("TS15"), source)]
        )
    ] == [True, True, False, False]


def voc(root, objects=("person", "dog", "car"), flags=((0, 0), (0, 0), (0, 0))):
    "VOC 2012 from its development kit's documentation: number k of a segmentation is object k of the annotation."
    for folder in ("Annotations", "JPEGImages", "SegmentationObject"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    palette = {0: (0, 0, 0), 1: (128, 0, 0), 2: (0, 128, 0), 3: (128, 128, 0), 255: (224, 224, 192)}
    numbers = np.zeros((90, 120), np.uint8)
    for k, (x, y) in enumerate(((5, 5), (45, 10), (85, 20)), 1):
        numbers[y : y + 40, x : x + 30] = k
        numbers[y, x : x + 30] = 255
    (root / "JPEGImages" / "2007_1.jpg").write_bytes(encode_jpeg(np.stack([numbers * 60] * 3, -1)))
    colours = np.array([palette[n] for n in numbers.ravel()], np.uint8).reshape(90, 120, 3)
    cv2.imwrite(str(root / "SegmentationObject" / "2007_1.png"), colours[..., ::-1])
    things = "".join(
        f"<object><name>{n}</name><truncated>{t}</truncated><difficult>{d}</difficult></object>"
        for n, (t, d) in zip(objects, flags)
    )
    (root / "Annotations" / "2007_1.xml").write_text(
        f"<annotation><segmented>1</segmented>{things}</annotation>", encoding="utf-8"
    )
    return numbers


def test_objects_of_voc(tmp_path):
    numbers = voc(tmp_path)
    assert (palette_numbers(tmp_path / "SegmentationObject" / "2007_1.png") == numbers).all()
    dog, car = voc_objects(tmp_path)
    assert (
        dog.shape == (39, 30, 4)
        and abs(dog[20, 15, :3].astype(int) - 120).max() < 6
        and abs(car[20, 15, :3].astype(int) - 180).max() < 6
        and (dog[20, 15, 3], dog[0, 0, 3]) == (255, 128)
    )
    voc(tmp_path, flags=((0, 0), (1, 0), (0, 1)))
    assert voc_objects(tmp_path) == () and voc_objects(tmp_path, least_area=10**6) == ()
    voc(tmp_path)
    assert max(voc_objects(tmp_path, longest=16)[0].shape[:2]) == 16


def test_damaged_voc_is_refused(tmp_path):
    with pytest.raises(NativeError, match="Pascal VOC 2012 .*download"):
        voc_objects(tmp_path)
    for damage in (
        lambda: (tmp_path / "Annotations/2007_1.xml").write_text("<annotation>", encoding="utf-8"),
        lambda: (tmp_path / "Annotations/2007_1.xml").unlink(),
        lambda: (tmp_path / "JPEGImages/2007_1.jpg").unlink(),
        lambda: cv2.imwrite(str(tmp_path / "SegmentationObject/2007_1.png"), np.full((90, 120, 3), 3, np.uint8)),
        lambda: cv2.imwrite(str(tmp_path / "SegmentationObject/2007_1.png"), np.zeros((9, 12, 3), np.uint8)),
    ):
        voc(tmp_path)
        damage()
        with pytest.raises(NativeError, match="2007_1"):
            voc_objects(tmp_path)


def test_an_object_needs_pixels():
    with pytest.raises(ValueError, match="mask"):
        cut_object(picture(), np.zeros((48, 64), bool))


def test_backgrounds(tmp_path):
    for k in range(3):
        (tmp_path / f"{k}.JPG").write_bytes(encode_jpeg(picture(seed=k)))
    assert len(pictures(tmp_path)) == 3 and pictures(tmp_path, longest=32)[0].shape == (24, 32, 3)
    (tmp_path / "empty.txt").write_text("2.JPG\n0.JPG\n", encoding="utf-8")
    assert [
        abs(p.astype(int) - picture(seed=k)).mean() < 3
        for p, k in zip(pictures(tmp_path, tmp_path / "empty.txt"), (2, 0))
    ] == [True, True]
    (tmp_path / "empty.txt").write_text("7.JPG\n", encoding="utf-8")
    with pytest.raises(NativeError, match="7.JPG"):
        pictures(tmp_path, tmp_path / "empty.txt")
    with pytest.raises(NativeError, match="without people"):
        pictures(tmp_path / "none")


def test_folders_for_a_training(tmp_path):
    from PIL import Image

    rng = np.random.default_rng(0)
    for channels in (4, 3):
        written = [rng.integers(0, 256, (5 + k, 9, channels), dtype=np.uint8) for k in range(3)]
        folder = write_pictures(written, tmp_path / "objects")
        names = sorted(p.name for p in folder.iterdir())
        assert names == ["000000.png", "000001.png", "000002.png"]
        for name, picture in zip(names, written):  # read by another library
            found = Image.open(folder / name)
            assert found.mode == ("RGBA" if channels == 4 else "RGB") and (np.asarray(found) == picture).all()
    with pytest.raises(ValueError, match="objects: expected pictures"):
        write_pictures([], tmp_path / "objects")
    assert len(list((tmp_path / "objects").iterdir())) == 3
