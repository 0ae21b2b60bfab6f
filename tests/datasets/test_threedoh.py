"""3DOH50K: a tiny set in the owners' layout, written here, read back, and damaged."""

import json

import cv2
import numpy as np
import pytest
from mutations import check_mutations
from native_scene import opencv_project, people, picture, ring, shows, write_image

from acae_nb.datasets import threedoh
from acae_nb.datasets.native_files import NativeError
from acae_nb.examples.images import decode_mask

SIZE = (80, 60)


def write(root):
    """SPLITset/annots.json: {id: extri, intri, bbox, lsp_joints_3d in the camera's frame and the unit of extri,
    lsp_joints_2d, scale: that unit in a metre}."""
    truth = {}
    for split, n in (("train", 3), ("test", 2)):
        folder, entries = root / f"{split}set", {}
        folder.mkdir()
        for k in range(n):
            unit, name = 6.5 + 0.3 * k, f"{100 * k + 7:05d}"
            (place,), (turn,) = ring(1, up=(0, 1, 0), target=(0, 900, 0), turn=k)
            K = np.array([[75.0, 0, 39], [0, 74 + k, 30], [0, 0, 1]])
            world = people(10 * n + k, n_joints=14, up=1)
            if k == 1:
                world[3] = np.nan
            seen = (world - place) @ turn.T * unit / 1000
            px = opencv_project(world, K, np.zeros(5), turn, place)
            entries[name] = dict(
                img_path=f"images\\{name}.jpg",
                mask_path=f"masks\\{name}.png",
                extri=np.vstack([np.c_[turn, -turn @ place * unit / 1000], [0, 0, 0, 1]]).tolist(),
                intri=K.tolist(),
                bbox=[[20 + k, 10], [60, 55]],
                lsp_joints_3d=seen.tolist(),
                lsp_joints_2d=np.nan_to_num(px).tolist(),
                scale=[unit],
                betas=[[0.0] * 10],
                pose=[[0.0] * 72],
            )
            write_image(folder / f"images/{name}.jpg", picture(k, SIZE))
            mask = np.zeros(SIZE[::-1], bool)
            mask[10:50, 20 + k : 50] = True
            if split == "train":
                (folder / "masks").mkdir(exist_ok=True)
                cv2.imwrite(str(folder / f"masks/{name}.png"), np.uint8(255) * mask[..., None].repeat(3, -1))
            truth[split, name] = world, px, [20 + k, 10, 40 - k, 45], mask, k
        (folder / "annots.json").write_text(json.dumps(entries), encoding="utf-8")
    return truth


@pytest.mark.parametrize("split", ["train", "test"])
def test_reads_what_was_written(tmp_path, split):
    truth, rows = write(tmp_path), list(threedoh.read(tmp_path, split))
    assert [e.example_id for e, _ in rows] == [i for s, i in truth if s == split]
    for e, image in rows:
        world, px, box, mask, number = truth[split, e.example_id]
        np.testing.assert_allclose(e.joints3d, world, atol=0.01)
        np.testing.assert_allclose(e.camera.project(e.joints3d), px, atol=0.1)
        assert (e.dataset, e.split, e.image_size, e.box.tolist()) == ("threedoh", split, SIZE, box) and shows(
            image.load(), number
        )
        assert (e.mask is None) == (split == "test") and (split == "test" or (decode_mask(e.mask, SIZE) == mask).all())


def test_refusals(tmp_path):
    with pytest.raises(NativeError, match="3DOH50K.*gitee"):
        next(threedoh.read(tmp_path / "none"))
    write(tmp_path)
    path = tmp_path / "trainset/annots.json"
    data = json.loads(path.read_text("utf-8"))
    data["00007"]["lsp_joints_2d"] = [[500, 500]] * 14
    path.write_text(json.dumps(data), encoding="utf-8")
    with pytest.raises(NativeError, match="annots.json: rows: .*00007/lsp_joints_2d"):
        list(threedoh.read(tmp_path))


def test_mutations(tmp_path, nightly):
    check_mutations(write, lambda root: threedoh.read(root), tmp_path, n=200 if nightly else 10)
