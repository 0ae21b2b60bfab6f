"""The two clips of CMU: forward kinematics against positions worked out by hand, broken files, the committed result
made again.
"""

import shutil
import subprocess

import numpy as np
import pytest
from conftest import REPO

from acae_nb.people.cmu_clips import CMU_CLIPS, cmu_clips, read_bvh, write_cmu_clips
from acae_nb.people.motion import ROW
from acae_nb.people.sample_data import check_sha256, sha256_of

PACKAGE = "assimp-testmodels=5.2.5~ds0-1"
ARCHIVE = "526f326186000cd6f631ea806128548a7d3d391abd8149fddc5c4c8513e80b8a"
FILE = """HIERARCHY
ROOT Hips
{
  OFFSET 1 0 0
  CHANNELS 6 Xposition Yposition Zposition Zrotation Yrotation Xrotation
  JOINT Knee
  {
    OFFSET 0 -2 0
    CHANNELS 3 Zrotation Yrotation Xrotation
    End Site
    {
      OFFSET 0 -3 0
    }
  }
}
MOTION
Frames: 3
Frame Time: .05
0 0 0 0 0 0 0 0 0
5 6 7 90 0 0 0 0 0
0 0 0 90 90 0 0 0 90
"""


def test_positions_worked_out_by_hand(tmp_path):
    path = tmp_path / "leg.bvh"
    path.write_text(FILE)
    clip = read_bvh(path)
    assert clip.fps == 20 and list(clip.positions) == ["Hips", "Knee", "Knee.end"]
    assert clip.positions["Knee.end"][0] == pytest.approx([1, -5, 0])
    # a quarter turn about z carries -y to +x
    assert clip.positions["Hips"][1] == pytest.approx([6, 6, 7])
    assert clip.positions["Knee"][1] == pytest.approx([8, 6, 7])
    assert clip.positions["Knee.end"][1] == pytest.approx([11, 6, 7])
    # the hips turn about z, then about their own y; the knee's quarter turn about its x carries its -y to -z
    assert clip.positions["Knee"][2] == pytest.approx([3, 0, 0])
    turned = np.array([[0, -1, 0], [1, 0, 0], [0, 0, 1]]) @ np.array([[0, 0, 1], [0, 1, 0], [-1, 0, 0]])
    assert clip.positions["Knee.end"][2] == pytest.approx([3, 0, 0] + turned @ [0, 0, -3])


@pytest.mark.parametrize(
    "old, new, words",
    [
        ("HIERARCHY", "", "expected HIERARCHY and MOTION"),
        ("MOTION", "", "expected HIERARCHY and MOTION"),
        ("OFFSET 0 -3 0", "OFSET 0 -3 0", "HIERARCHY: expected ROOT, .* found 'OFSET'"),
        ("5 6 7 90 0 0 0 0 0", "5 6 7 90 0 0 0 0", "field `MOTION`: expected 3 frames of 9 numbers, found 26"),
        ("5 6 7", "5 nan 7", "field `MOTION`: expected finite numbers"),
    ],
)
def test_broken_files_are_refused(tmp_path, old, new, words):
    path = tmp_path / "leg.bvh"
    path.write_text(FILE.replace(old, new))
    with pytest.raises(ValueError, match=words) as error:
        read_bvh(path)
    assert str(path) in str(error.value)


def test_the_packaged_clips_are_a_man_on_a_playground():
    clips = cmu_clips()
    assert [(clip.name, len(clip), clip.fps) for clip in clips] == [("cmu_01_01", 688, 30), ("cmu_01_03", 1128, 30)]
    for clip in clips:
        thigh = np.linalg.norm(clip.positions[:, ROW["lhip"]] - clip.positions[:, ROW["lknee"]], axis=1)
        assert thigh == pytest.approx(404, abs=4)  # CMU's offset of the left knee, 7.158 units of 56.4 mm
    assert np.ptp(clips[1].positions[:, ROW["pelvis"], 2]) > 600  # climbing


@pytest.mark.nightly
def test_the_packaged_clips_are_made_again_from_debians_package(tmp_path):
    if shutil.which("apt-get") is None or shutil.which("dpkg-deb") is None:
        pytest.skip("apt-get and dpkg-deb bring the files that the clips were made from")
    subprocess.run(["apt-get", "download", PACKAGE], cwd=tmp_path, check=True)
    (archive,) = tmp_path.glob("*.deb")
    check_sha256(sha256_of(archive), ARCHIVE, archive)
    subprocess.run(["dpkg-deb", "-x", archive, tmp_path / "assimp"], check=True)
    write_cmu_clips(tmp_path / "assimp/usr/share/assimp/models/BVH", tmp_path / "clips.npz")
    with np.load(tmp_path / "clips.npz") as made, np.load(REPO / "acae_nb/data/cmu_clips.npz") as kept:
        for name in CMU_CLIPS:
            np.testing.assert_array_equal(made[name], kept[name])
