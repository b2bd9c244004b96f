/**
 * The model, as the page knows it. A page without a server replaces this file alone.
 *
 * describe() resolves to
 *   {name, classes, image_size: [height, width], crop_fraction, layers, heads, parameters,
 *    limits: {picture_bytes}, privacy}
 *
 * answer(file) resolves to
 *   {predictions: [{class, probability}], likeliest first,
 *    attention: {layers, heads, rows, columns,
 *                weights: Float32Array [layers, heads, rows, columns],
 *                rollout: Float32Array [rows, columns]}}
 *   where each map sums to 1, or rejects with an Error whose message is for the user.
 */

const TRIES = 4; // of a server that is busy

export async function describe() {
  const description = await read(await fetch('model'));
  return {...description, privacy: 'The server keeps no picture: it reads them in memory only.'};
}

export async function answer(file) {
  const form = new FormData();
  form.append('picture', file, file.name || 'photo.png');
  const response = await send(form);
  const [found] = (await read(response)).answers;
  if (found.error) throw new Error(found.error);
  const {layers, heads, rows, columns, ...maps} = found.attention;
  const weights = decode(maps.weights);
  const size = rows * columns;
  const peaks = maps.peaks.flat();
  return {
    predictions: found.predictions,
    attention: {
      layers, heads, rows, columns,
      weights: weights.map((value, i) => value * peaks[Math.floor(i / size)] / 255),
      rollout: decode(maps.rollout).map((value) => value * maps.rollout_peak / 255),
    },
  };
}

async function send(form) {
  for (let tried = 1; ; tried++) {
    let response;
    try {
      response = await fetch('predict?attention=true', {method: 'POST', body: form});
    } catch {
      throw new Error('The server does not answer. Is it still running?');
    }
    if (response.status !== 503 || tried === TRIES) return response;
    const seconds = Number(response.headers.get('Retry-After')) || 1;
    await new Promise((resolve) => setTimeout(resolve, Math.min(seconds, 10) * 1000));
  }
}

/** The JSON of a response that has some. */
async function read(response) {
  const content = await response.json().catch(() => ({}));
  if (content.answers || response.ok) return content;
  throw new Error(content.error || `The server answered with status ${response.status}.`);
}

/** Base64 of bytes, as numbers. */
function decode(text) {
  return Float32Array.from(atob(text), (letter) => letter.charCodeAt(0));
}
