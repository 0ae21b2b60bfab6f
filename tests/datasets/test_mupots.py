"""MuPoTS-3D: two tiny sequences in the owners' layout, written here, read back, and damaged."""

import numpy as np
import pytest
import scipy.io
from mutations import check_mutations
from native_scene import people, picture, shows, write_image

from acae_nb.datasets import mupots
from acae_nb.datasets.native_files import NativeError

SIZE, FRAMES = (80, 60), 3


def write(root):
    """TSn/annot.mat: annotations, cell [frame, person] of structs annot2 [2, 17], annot3 and univ_annot3 [3, 17],
    isValidFrame; TSn/img_FRAME6.jpg from 0."""
    # annot2 is the projection of annot3 but for hips and spine (8, 11, 15), as others found who fitted the cameras
    truth = {}
    for s, (name, n) in enumerate((("TS2", 2), ("TS11", 3))):
        K = np.array([[70 + s, 0, 38], [0, 72, 31 + s], [0, 0, 1.0]])
        cells = np.empty((FRAMES, n), object)
        for f in range(FRAMES):
            for p in range(n):
                seen = people(100 * s + 10 * f + p, n_joints=17, up=1) * [1, -1, 1] + [
                    600 * p - 500,
                    950,
                    4000 + 300 * p,
                ]
                px = seen[:, :2] / seen[:, 2:] * K[[0, 1], [0, 1]] + K[:2, 2]
                valid = not (f == 1 and p == 1)
                labels = (
                    px + [[1.5, 2.5]] * np.isin(np.arange(17), [8, 11, 15])[:, None]
                )  # hips and spine are labelled elsewhere
                cells[f, p] = dict(
                    annot2=labels.T, annot3=seen.T, univ_annot3=1.1 * seen.T, isValidFrame=np.array([[valid]], np.uint8)
                )
                if valid:
                    truth[f"{name}/{f:06d}/{p}"] = seen, px, f + 5 * s
            write_image(root / name / f"img_{f:06d}.jpg", picture(f + 5 * s, SIZE))
        scipy.io.savemat(root / name / "annot.mat", dict(annotations=cells))
    return truth


def test_reads_what_was_written(tmp_path):
    truth, rows = write(tmp_path), list(mupots.read(tmp_path))
    assert [e.example_id for e, _ in rows] == sorted(truth, key=lambda i: (i.startswith("TS11"), i)) and len(
        rows
    ) == 5 + 8
    for e, image in rows:
        seen, px, number = truth[e.example_id]
        np.testing.assert_allclose(e.joints3d, seen, atol=0.01)
        np.testing.assert_allclose(e.camera.project(e.joints3d), px, atol=0.1)
        assert (e.dataset, e.split, e.image_size, e.frame) == (
            "mupots",
            "test",
            SIZE,
            int(e.example_id.split("/")[1]),
        ) and shows(image.load(), number)
        inside = px[((px > -0.5) & (px < np.array(SIZE) - 0.5)).all(1)]
        assert (inside >= e.box[:2]).all() and (inside <= e.box[:2] + e.box[2:]).all()
    univ = {e.example_id: e for e, _ in mupots.read(tmp_path, sequences="TS2", poses="univ_annot3")}
    assert len(univ) == 5 and np.allclose(univ["TS2/000000/1"].joints3d, 1.1 * truth["TS2/000000/1"][0])


def test_labels_that_no_camera_explains(tmp_path):
    write(tmp_path)
    cells = scipy.io.loadmat(tmp_path / "TS2/annot.mat")["annotations"]
    for one in cells.ravel():
        one["annot2"][0, 0][:] = one["annot2"][0, 0][:, ::-1].copy()
    scipy.io.savemat(tmp_path / "TS2/annot.mat", dict(annotations=cells))
    with pytest.raises(NativeError, match="annot.mat: annot2: expected the projection of annot3|fitted to"):
        list(mupots.read(tmp_path))


def test_absent(tmp_path):
    with pytest.raises(NativeError, match="MuPoTS-3D.*SingleShotMultiPerson"):
        list(mupots.read(tmp_path / "none"))


def test_mutations(tmp_path, nightly):
    check_mutations(write, lambda root: mupots.read(root), tmp_path, n=200 if nightly else 10)
