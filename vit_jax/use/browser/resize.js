// Resizes pixels as Pillow does, bit for bit: bilinear, with antialiasing, rounded to 8 bits after
// each of the two passes. A canvas would scale otherwise, and so give other probabilities.
// Source: Pillow's src/libImaging/Resample.c.

const PRECISION_BITS = 22;

// For each output pixel: the first input pixel, and the weights from there on.
function coefficients(inputs, from, to, outputs) {
  const scale = Math.fround(to - from) / outputs;
  const support = Math.max(scale, 1); // of the triangle, on each side
  return Array.from({length: outputs}, (_, x) => {
    const centre = from + (x + 0.5) * scale;
    const first = Math.max(Math.trunc(centre - support + 0.5), 0);
    const end = Math.min(Math.trunc(centre + support + 0.5), inputs);
    const weights = [];
    for (let i = first; i < end; i++) {
      weights.push(Math.max(1 - Math.abs((i - centre + 0.5) / support), 0));
    }
    const sum = weights.reduce((a, b) => a + b, 0);
    return {first, weights: weights.map((w) => Math.trunc((w / sum) * 2 ** PRECISION_BITS + 0.5))};
  });
}

// Resizes along one axis. Pixels of a line lie `step` apart; a line is [its start, its result's].
function pass(pixels, table, step, lines, output) {
  for (const [start, outputStart] of lines) {
    for (let x = 0; x < table.length; x++) {
      const {first, weights} = table[x];
      let sum = 2 ** (PRECISION_BITS - 1);
      for (let i = 0; i < weights.length; i++) {
        sum += pixels[start + (first + i) * step] * weights[i];
      }
      output[outputStart + x * step] = sum >> PRECISION_BITS;
    }
  }
  return output;
}

function horizontal(pixels, [height, width, channels], columns, from, to) {
  if (columns === width && !from && to === width) {
    return pixels;
  }
  const lines = [];
  for (let y = 0; y < height; y++) {
    for (let c = 0; c < channels; c++) {
      lines.push([y * width * channels + c, y * columns * channels + c]);
    }
  }
  const output = new Uint8Array(height * columns * channels);
  return pass(pixels, coefficients(width, from, to, columns), channels, lines, output);
}

function vertical(pixels, [height, width, channels], rows, from, to) {
  if (rows === height && !from && to === height) {
    return pixels;
  }
  const step = width * channels;
  const lines = Array.from({length: step}, (_, i) => [i, i]);
  const output = new Uint8Array(rows * step);
  return pass(pixels, coefficients(height, from, to, rows), step, lines, output);
}

/**
 * @param {Uint8Array} pixels height × width × channels.
 * @param {number[]} size [height, width, channels] of them.
 * @param {number[]} wanted [height, width] of the result.
 * @param {number[]} box [left, top, right, bottom] of the part to resize.
 * @returns {Uint8Array}
 */
export function resize(pixels, [height, width, channels], wanted, box = [0, 0, width, height]) {
  const [left, top, right, bottom] = box.map(Math.fround);
  const [rows, columns] = wanted;
  // The order of the passes in Pillow 13; the rounding between them depends on it.
  if (rows < height && height - rows > 2 * (width - columns)) {
    const wide = vertical(pixels, [height, width, channels], rows, top, bottom);
    return horizontal(wide, [rows, width, channels], columns, left, right);
  }
  const high = horizontal(pixels, [height, width, channels], columns, left, right);
  return vertical(high, [height, columns, channels], rows, top, bottom);
}

// The centre crop of vit_jax.data.preprocess.Preprocessing.
export function centreBox(width, height, [rows, columns], fraction) {
  const scale = fraction * Math.min(height / rows, width / columns);
  const left = Math.max(width - scale * columns, 0) / 2;
  const top = Math.max(height - scale * rows, 0) / 2;
  return [left, top, width - left, height - top];
}

// Red, green, blue and alpha, as a canvas has them, to the model's channels: RGB, or grey by
// ITU-R 601-2 in Pillow's integers. Transparency is dropped.
export function recolour(rgba, channels) {
  const output = new Uint8Array((rgba.length / 4) * channels);
  for (let i = 0, o = 0; i < rgba.length; i += 4) {
    const [r, g, b] = [rgba[i], rgba[i + 1], rgba[i + 2]];
    if (channels === 1) {
      output[o++] = (r * 19595 + g * 38470 + b * 7471 + 0x8000) >> 16;
    } else {
      output[o++] = r;
      output[o++] = g;
      output[o++] = b;
    }
  }
  return output;
}
