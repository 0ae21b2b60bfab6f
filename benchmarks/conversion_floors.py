"""What benchmarks/conversion.py and benchmarks/conversion_mesh.py measured, as data of the package and as pictures. No
person is posed and nothing is fitted: their tables are read.

    python benchmarks/conversion_floors.py [--floors acae_nb/data/conversion_floors.json]
                                           [--picture results/conversion.jpg]
                                           [--mesh-picture results/conversion_mesh.jpg]
"""

import argparse
import json
from pathlib import Path

from conversion import draw_package, mean_errors
from conversion_mesh import draw_mesh

from acae_nb.basics.files import write_whole
from acae_nb.people.formats import rig_skeleton

PAIRS = "pairs [median mm, mean mm, share of joints]"


def square(by_pair):
    """Rows of a table [F][F] of pairs."""
    return [[*row.values()] for row in by_pair.values()]


def floors(table, mesh):
    """Mean errors in mm of every pair by each way, the joints of the same name, and how many people were measured."""
    pairs, formats = table[PAIRS], [*table[PAIRS]]
    mean_mm = {way: square(mean_errors(pairs, way)) for way in ("name", "linear", "autoencoder")}
    unmeasured = {"mesh": [None, None, 0.0]}
    by_mesh = {a: {b: mesh[PAIRS].get(a, {}).get(b, unmeasured) for b in formats} for a in formats}
    names = {name: rig_skeleton(name).short_names for name in formats}
    shared = [[sum(joint in names[a] for joint in names[b]) for b in formats] for a in formats]
    return {
        "formats": formats,
        "people": dict.fromkeys(mean_mm, table["people"]["test"]) | {"mesh": mesh["people"]["test, of each format"]},
        "joints of the same name": shared,
        "mean mm": mean_mm | {"mesh": square(mean_errors(by_mesh, "mesh"))},
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--table", type=Path, default=Path("results/conversion.json"), help="of conversion.py")
    parser.add_argument("--mesh", type=Path, default=Path("results/conversion_mesh.json"), help="of conversion_mesh.py")
    parser.add_argument("--floors", type=Path, help="the package's data, JSON")
    parser.add_argument("--picture", type=Path, help="of conversion.py")
    parser.add_argument("--mesh-picture", type=Path, help="of conversion_mesh.py")
    args = parser.parse_args()
    table, mesh = (json.loads(path.read_text("utf-8")) for path in (args.table, args.mesh))
    if args.floors:
        write_whole(args.floors, json.dumps(floors(table, mesh)) + "\n")
    if args.picture:
        draw_package(table[PAIRS], args.picture)
    if args.mesh_picture:
        draw_mesh(mesh[PAIRS], table[PAIRS], args.mesh_picture)


if __name__ == "__main__":
    main()
