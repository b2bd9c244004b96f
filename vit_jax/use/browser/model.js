// The model in the visitor's browser, by ONNX Runtime in WebAssembly: no picture leaves it. The
// answers are those of the server.

import * as ort from './ort.wasm.bundle.min.mjs';
import {centreBox, recolour, resize} from './resize.js';

// Several threads take SharedArrayBuffer, which browsers give to cross-origin isolated pages only.
ort.env.wasm.numThreads = self.crossOriginIsolated ? navigator.hardwareConcurrency : 1;
ort.env.wasm.wasmPaths = {wasm: new URL('ort-wasm-simd-threaded.wasm', import.meta.url).href};

const described = fetchWhole('model.onnx.json').then((response) => response.json());
let session; // loaded for the first picture

async function fetchWhole(name) {
  const response = await fetch(new URL(name, import.meta.url));
  if (!response.ok) {
    throw new Error(`${name}: ${response.status} ${response.statusText}`);
  }
  return response;
}

async function load() {
  const data = await (await fetchWhole('model.onnx')).arrayBuffer();
  if (crypto.subtle) { // which browsers have on https and on localhost
    const hash = new Uint8Array(await crypto.subtle.digest('SHA-256', data));
    const text = Array.from(hash, (byte) => byte.toString(16).padStart(2, '0')).join('');
    if (text !== (await described).sha256) {
      throw new Error('model.onnx: the file was damaged or replaced; export the model again');
    }
  }
  return ort.InferenceSession.create(data, {executionProviders: ['wasm']});
}

/** What the page says of the model, as the server's GET /model. */
export async function describe() {
  const {class_names: classes, source: name, ...rest} = await described;
  return {classes, name, ...rest};
}

/** Classes and maps of attention of a picture, as the server's POST /predict. */
export async function predict(file, {topK = 5, attention = false} = {}) {
  const found = await compute(await preprocess(file));
  const {class_names: names} = await described;
  const predictions = Array.from(found.probabilities.data, (probability, i) => {
    return {class: names[i], probability};
  });
  predictions.sort((a, b) => b.probability - a.probability);
  const answer = {name: file.name, predictions: predictions.slice(0, topK)};
  if (attention) {
    answer.attention = encode(found.attention, found.rollout);
  }
  return answer;
}

// Maps in a byte for each patch, 255 is the peak of the map.
function encode(attention, rollout) {
  const [, layers, heads, rows, columns] = attention.dims;
  const each = quantize(attention.data, rows * columns);
  const together = quantize(rollout.data, rows * columns);
  return {
    layers,
    heads,
    rows,
    columns,
    weights: base64(each.bytes),
    peaks: each.peaks,
    rollout: base64(together.bytes),
    rollout_peak: together.peaks[0],
  };
}

function quantize(data, size) {
  const bytes = new Uint8Array(data.length);
  const peaks = [];
  for (let start = 0; start < data.length; start += size) {
    const peak = data.subarray(start, start + size).reduce((a, b) => Math.max(a, b), 0);
    peaks.push(peak);
    for (let i = start; i < start + size; i++) {
      bytes[i] = Math.round((data[i] * 255) / (peak || 1));
    }
  }
  return {bytes, peaks};
}

function base64(bytes) {
  let text = '';
  for (const byte of bytes) {
    text += String.fromCharCode(byte);
  }
  return btoa(text);
}

/** A picture as the model sees it: uint8, of its size and channels. */
export async function preprocess(file) {
  const {image_size: size, channels, crop_fraction: fraction} = await described;
  let bitmap;
  try {
    bitmap = await createImageBitmap(file, {
      colorSpaceConversion: 'none',
      imageOrientation: 'from-image',
    });
  } catch {
    throw new Error(`${file.name}: expected a picture`);
  }
  const {width, height} = bitmap;
  const canvas = new OffscreenCanvas(width, height).getContext('2d', {willReadFrequently: true});
  canvas.drawImage(bitmap, 0, 0);
  bitmap.close();
  const pixels = recolour(canvas.getImageData(0, 0, width, height).data, channels);
  const box = fraction ? centreBox(width, height, size, fraction) : [0, 0, width, height];
  return resize(pixels, [height, width, channels], size, box);
}

/** Probabilities in the order of the classes, and what each layer and head looks at. */
export async function compute(pixels) {
  const {image_size: size, channels} = await described;
  session ??= load();
  const images = new ort.Tensor('uint8', pixels, [1, ...size, channels]);
  return (await session).run({images});
}
