// What TensorFlow.js computes from a graph model (NAME.json and NAME.bin): node movenet_reference.mjs MODEL.json PICTURE.raw HEIGHT WIDTH OUTPUT NODE...
// PICTURE.raw: uint8 RGB. Writes OUTPUT.I.f32, the answer of the I-th node, row by row, and prints its name and shape.
// Needs `npm install @tensorflow/tfjs` beside it. See movenet_reference.py.
import fs from "node:fs";
import path from "node:path";
import * as tf from "@tensorflow/tfjs";

const [model, picture, height, width, output, ...nodes] = process.argv.slice(2);
await tf.setBackend("cpu");
const description = JSON.parse(fs.readFileSync(model));
const weights = fs.readFileSync(path.join(path.dirname(model), description.weightsManifest[0].paths[0]));
const shape = description.modelTopology.node.find((node) => node.op === "Placeholder").attr.shape.shape;
shape.dim[1].size = height; // the published Thunder takes 256 px only; its encoder is the same at every size
shape.dim[2].size = width;
for (const input of Object.values(description.signature.inputs)) input.tensorShape = { dim: shape.dim };
const graph = await tf.loadGraphModel(
  tf.io.fromMemory({
    modelTopology: description.modelTopology,
    signature: description.signature,
    weightSpecs: description.weightsManifest[0].weights,
    weightData: weights.buffer.slice(weights.byteOffset, weights.byteOffset + weights.length),
  }),
);
const pixels = new Int32Array(fs.readFileSync(picture));
const input = tf.tensor(pixels, [1, Number(height), Number(width), 3], "int32");
for (const [i, node] of nodes.entries()) {
  const answer = await graph.executeAsync(input, node);
  fs.writeFileSync(`${output}.${i}.f32`, Buffer.from((await answer.data()).buffer));
  console.log(node, JSON.stringify(answer.shape));
}
