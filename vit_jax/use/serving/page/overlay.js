/** Drawing: a picture, dimmed, with a glow where the attention is. */

const SIDE = 1280; // pixels of the longer side of a drawing
const SHADE = [14, 11, 8];
const GREY = [128, 128, 128];
const GLOW = [[226, 84, 30], [255, 146, 36], [255, 204, 84]]; // from little to much

/** The part of a picture that the model sees: [left, top, width, height], as its preprocessing. */
export function seenBox(width, height, [rows, columns], fraction) {
  if (!fraction) return [0, 0, width, height];
  const scale = fraction * Math.min(height / rows, width / columns);
  const left = Math.max(width - scale * columns, 0) / 2;
  const top = Math.max(height - scale * rows, 0) / 2;
  return [left, top, width - 2 * left, height - 2 * top];
}

/** A picture in memory, of a size that suits a screen; null if the browser cannot show it. */
export async function loadPicture(file) {
  const bitmap = await createImageBitmap(file).catch(() => null);
  if (!bitmap) return null;
  const scale = SIDE / Math.max(bitmap.width, bitmap.height);
  const canvas = new OffscreenCanvas(
    Math.max(1, Math.round(bitmap.width * scale)), Math.max(1, Math.round(bitmap.height * scale)));
  const context = canvas.getContext('2d');
  context.imageSmoothingEnabled = scale < 6; // the pixels of a tiny picture are squares
  context.imageSmoothingQuality = 'high';
  context.fillStyle = '#fff'; // behind what is transparent
  context.fillRect(0, 0, canvas.width, canvas.height);
  context.drawImage(bitmap, 0, 0, canvas.width, canvas.height);
  bitmap.close();
  return canvas;
}

/** A plain square in place of a picture that the browser cannot show. */
export function blankPicture() {
  const canvas = new OffscreenCanvas(SIDE, SIDE);
  const context = canvas.getContext('2d');
  context.fillStyle = '#8d8a84';
  context.fillRect(0, 0, SIDE, SIDE);
  return canvas;
}

/**
 * Draws a picture and the attention over it.
 *
 * map: {rows, columns, values} or null; box: of `seenBox`, in pixels of the picture.
 */
export function draw(canvas, picture, map, box, width = picture.width) {
  const scale = width / picture.width;
  canvas.width = width;
  canvas.height = Math.max(1, Math.round(picture.height * scale));
  const context = canvas.getContext('2d');
  context.imageSmoothingQuality = 'high';
  context.drawImage(picture, 0, 0, canvas.width, canvas.height);
  if (!map) return;
  const [left, top, breadth, height] = box.map((side) => side * scale);
  const outside = new Path2D();
  outside.rect(0, 0, canvas.width, canvas.height);
  outside.rect(left, top, breadth, height);
  context.fillStyle = `rgb(${SHADE} / 0.9)`;
  context.fill(outside, 'evenodd'); // the model did not see it
  const light = relative(map.values);
  context.save();
  context.beginPath();
  context.rect(left, top, breadth, height);
  context.clip();
  const area = [left, top, breadth, height];
  context.globalCompositeOperation = 'saturation'; // greyer, so that the glow stands out
  context.drawImage(paint(map, light, () => GREY, (value) => 0.9 * (1 - value)), ...area);
  context.globalCompositeOperation = 'source-over';
  context.drawImage(paint(map, light, () => SHADE, (value) => 0.78 * (1 - value)), ...area);
  context.drawImage(paint(map, light, glow, (value) => 0.68 * value ** 1.5), ...area);
  context.restore();
}

/** Values from 0 to 1; lifted, since a few patches often take most of the attention. */
function relative(values) {
  const least = Math.min(...values);
  const range = Math.max(...values) - least || 1;
  return Array.from(values, (value) => ((value - least) / range) ** 0.65);
}

/** The colour of a value from 0 to 1. */
function glow(value) {
  const place = value * (GLOW.length - 1);
  const first = Math.min(Math.floor(place), GLOW.length - 2);
  return GLOW[first].map((x, i) => x + (GLOW[first + 1][i] - x) * (place - first));
}

/** Patches, each in the colour and the opacity of its value, with soft borders. */
function paint({rows, columns}, light, colour, opacity) {
  const image = new ImageData(columns, rows);
  light.forEach((value, i) => image.data.set([...colour(value), 255 * opacity(value)], 4 * i));
  const patches = new OffscreenCanvas(columns, rows);
  patches.getContext('2d').putImageData(image, 0, 0);
  // Squares of some pixels first: then only their borders become soft.
  const squares = new OffscreenCanvas(columns * 4, rows * 4);
  const context = squares.getContext('2d');
  context.imageSmoothingEnabled = false;
  context.drawImage(patches, 0, 0, squares.width, squares.height);
  return squares;
}
