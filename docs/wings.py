"""The picture of the wings, made from the imports of the package: python docs/wings.py writes docs/wings.svg.

A box is a wing with its modules, in the order in which imports may run. An arc joins a wing to one that it imports; its
width tells how many modules do."""

import sys
from collections import Counter
from pathlib import Path

import matplotlib

matplotlib.use("svg")
import matplotlib.pyplot as plt
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

REPO = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(REPO), str(REPO / "tests")]

from test_wings import WINGS  # noqa: E402

from acae_nb.basics.import_closure import modules_and_imports  # noqa: E402

HEIGHT = 0.78  # of a box; the boxes are 1 apart
BOXES = (0.0, 7.2)  # left side and width, in the same unit
ARCS = 7.3  # where the arcs begin


def wing_of(file: str) -> str:
    return file.split("/")[1]


def listed(names: list[str], longest: int = 116) -> str:
    "Names in two lines at most, the last of them replaced by their number where they are too many."
    lines, shown = [""], 0
    for name in names:
        if len(lines[-1]) + len(name) > longest:
            if len(lines) == 2:
                return "\n".join(lines) + f" and {len(names) - shown} more"
            lines.append("")
        lines[-1] += f"{name}  "
        shown += 1
    return "\n".join(line.strip() for line in lines)


def draw_wing(axes, row: int, wing: str, modules: list[str]) -> None:
    "One box: the wing's name, and below it its modules."
    left, width = BOXES
    box = FancyBboxPatch((left, row - HEIGHT / 2), width, HEIGHT, boxstyle="round,pad=0,rounding_size=0.08")
    box.set(facecolor="#eef3f8", edgecolor="#34516e", linewidth=0.8)
    axes.add_patch(box)
    axes.text(left + 0.12, row - 0.2, wing, weight="bold", size=9, va="center")
    axes.text(left + 0.12, row + 0.12, listed(modules), size=5.6, va="center", color="#333333", linespacing=1.3)


def draw_arc(axes, importing: int, imported: int, modules: int) -> None:
    "An arc from the row of a wing to that of a wing it imports."
    arrow = FancyArrowPatch(
        (ARCS, importing - 0.08),
        (ARCS, imported + 0.08),
        connectionstyle="arc3,rad=0.55",
        arrowstyle="-|>,head_length=3,head_width=1.5",
        linewidth=0.4 + 0.25 * modules**0.5,
        color="#34516e",
        alpha=0.55,
        shrinkA=0,
        shrinkB=0,
    )
    axes.add_patch(arrow)


def picture(imports: dict[str, set[str]]):
    "The figure of the wings and of the imports between them."
    rows = {wing: row for row, wing in enumerate(WINGS)}
    modules = {wing: [Path(file).stem for file in imports if wing_of(file) == wing] for wing in WINGS}
    pairs = {(file, wing_of(other)) for file, others in imports.items() for other in others}
    arcs = Counter((wing_of(file), other) for file, other in pairs if wing_of(file) != other)
    figure, axes = plt.subplots(figsize=(8.6, 9.6), layout="constrained")
    for wing, row in rows.items():
        draw_wing(axes, row, wing, modules[wing])
    for (importing, imported), count in sorted(arcs.items()):
        draw_arc(axes, rows[importing], rows[imported], count)
    axes.set(xlim=(-0.1, 11.4), ylim=(len(WINGS) - 0.5, -0.6))
    axes.axis("off")
    return figure


def main() -> None:
    matplotlib.rcParams["svg.hashsalt"] = "wings"  # the same bytes for the same imports
    matplotlib.rcParams["svg.fonttype"] = "none"
    picture(modules_and_imports()).savefig(REPO / "docs/wings.svg", metadata={"Date": None})


if __name__ == "__main__":
    main()
