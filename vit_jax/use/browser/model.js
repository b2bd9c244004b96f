// In place of the server's model.js: the model in the visitor's browser, by ONNX Runtime in
// WebAssembly.

import * as ort from './ort.wasm.bundle.min.mjs';
import {centreBox, recolour, resize} from './resize.js';

const TOP_K = 5;

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

export async function describe() {
  const {class_names: classes, source: name, ...rest} = await described;
  const privacy = 'The model runs in your browser: no picture leaves it.';
  return {classes, name, ...rest, limits: {picture_bytes: Infinity}, privacy};
}

export async function answer(file) {
  const {probabilities, attention, rollout} = await compute(await preprocess(file));
  const {class_names: names} = await described;
  const predictions = Array.from(probabilities.data, (probability, i) => {
    return {class: names[i], probability};
  });
  predictions.sort((a, b) => b.probability - a.probability);
  const [, layers, heads, rows, columns] = attention.dims;
  return {
    predictions: predictions.slice(0, TOP_K),
    attention: {layers, heads, rows, columns, weights: attention.data, rollout: rollout.data},
  };
}

// A picture as the model sees it: uint8, of its size and channels.
async function preprocess(file) {
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

// Probabilities in the order of the classes, and maps of attention.
async function compute(pixels) {
  const {image_size: size, channels} = await described;
  session ??= load().catch((error) => {
    session = undefined; // so that the next picture tries again
    throw error;
  });
  const images = new ort.Tensor('uint8', pixels, [1, ...size, channels]);
  return (await session).run({images});
}
