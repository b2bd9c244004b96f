/** The page: takes a picture, shows its classes, and the attention of each layer and head. */

import {photograph} from './camera.js';
import {answer, describe} from './model.js';
import {blankPicture, draw, loadPicture, seenBox} from './overlay.js';

const $ = (id) => document.getElementById(id);
const THUMBNAIL = 144; // pixels of the width of a head's map
const MEAN = -1; // in place of a head

let model = null;
let shown = null; // {name, picture, predictions, attention, box}
let head = MEAN;
let turn = 0; // of the latest picture; answers to earlier ones are dropped

const number = (value) => value.toLocaleString('en');
const percent = (value) => {
  if (value < 0.0005) return '< 0.1 %';
  if (value > 0.9995) return '> 99.9 %';
  return `${(100 * value).toFixed(value < 0.0995 || value > 0.9905 ? 1 : 0)} %`;
};

start();

async function start() {
  $('choose').addEventListener('click', () => $('file').click());
  $('photograph').addEventListener('click', () => photograph(look, fail));
  for (const id of ['file', 'capture']) $(id).addEventListener('change', takeInput);
  $('frame').addEventListener('click', () => shown || $('file').click());
  $('toggle').addEventListener('click', toggle);
  $('layer').addEventListener('input', drawAll);
  $('scope').addEventListener('change', drawAll);
  addEventListener('paste', (event) => take(event.clipboardData.files));
  addEventListener('dragover', (event) => drag(event, true));
  addEventListener('dragleave', (event) => event.relatedTarget || drag(event, false));
  addEventListener('drop', (event) => {
    drag(event, false);
    take(event.dataTransfer.files);
  });
  try {
    model = await describe();
  } catch (error) {
    fail(error.message);
    return;
  }
  const [height, width] = model.image_size;
  document.title = $('name').textContent = model.name;
  $('about').textContent =
    `Vision Transformer · ${number(model.parameters)} parameters · ${model.layers} layers of ` +
    `${model.heads} heads · sees ${width} × ${height} pixels · ${number(model.classes.length)} classes`;
  $('privacy').textContent = model.privacy;
  $('main').dataset.ready = 'true';
}

function drag(event, over) {
  event.preventDefault();
  $('main').classList.toggle('dragged', over);
}

function takeInput(event) {
  take(event.target.files);
  event.target.value = ''; // so that the same file can be chosen again
}

function take(files) {
  if (files.length) look(files[0]);
}

/** Sends a picture to the model and shows the answer. */
async function look(file) {
  const mine = ++turn;
  const limit = model?.limits.picture_bytes ?? Infinity;
  setBusy(true, file.name);
  try {
    if (file.size > limit) {
      throw new Error(`${file.name}: expected at most ${limit / 1e6} MB, got ${(file.size / 1e6).toFixed(1)} MB.`);
    }
    const found = await answer(file);
    const picture = (await loadPicture(file)) ?? blankPicture();
    if (mine === turn) show(file.name, picture, found);
  } catch (error) {
    if (mine === turn) fail(error.message);
  } finally {
    if (mine === turn) setBusy(false);
  }
}

function setBusy(busy, name = '') {
  $('frame').setAttribute('aria-busy', String(busy));
  if (!busy) return;
  $('error').hidden = true;
  $('status').textContent = `Looking at ${name} …`;
}

function fail(message) {
  $('error').textContent = message.endsWith('.') ? message : `${message}.`;
  $('error').hidden = false;
  $('status').textContent = '';
}

function show(name, picture, {predictions, attention}) {
  const box = seenBox(picture.width, picture.height, model.image_size, model.crop_fraction);
  const layers = shown?.attention.layers;
  shown = {name, picture, predictions, attention, box};
  $('main').dataset.state = 'answered';
  for (const element of document.querySelectorAll('[data-when]')) element.hidden = false;
  $('hint').hidden = true;
  $('choose').textContent = 'Choose another';
  showPredictions(predictions);
  if (layers !== attention.layers) {
    $('layer').max = attention.layers;
    $('layer').value = attention.layers;
    makeHeads(attention.heads);
  }
  drawAll();
  const [best] = predictions;
  $('status').textContent = `${best.class}, ${percent(best.probability)}`;
}

function showPredictions([best, ...others]) {
  $('best').replaceChildren(...row(best));
  $('predictions').replaceChildren(...others.map((prediction) => {
    const item = element('li');
    item.append(...row(prediction));
    return item;
  }));
}

/** The name of a class, its probability, and that as a bar. */
function row(prediction) {
  const bar = element('span', '', 'bar');
  const fill = element('span');
  fill.style.width = `${100 * prediction.probability}%`;
  bar.append(fill);
  const probability = element('span', percent(prediction.probability), 'percent');
  return [element('span', prediction.class, 'class'), probability, bar];
}

function element(tag, text = '', className = '') {
  const made = document.createElement(tag);
  made.textContent = text;
  made.className = className;
  return made;
}

/** A choice for the mean and each head, with room for a map. */
function makeHeads(count) {
  head = MEAN;
  const choices = [MEAN, ...Array(count).keys()];
  $('heads').replaceChildren(...choices.map((value) => {
    const label = element('label');
    const input = element('input');
    Object.assign(input, {type: 'radio', name: 'head', value, checked: value === MEAN});
    input.addEventListener('change', () => {
      head = value;
      drawPicture();
    });
    const canvas = element('canvas');
    canvas.setAttribute('aria-hidden', 'true');
    const name = element('span', value === MEAN ? 'Mean' : String(value + 1));
    if (value !== MEAN) name.prepend(element('span', 'Head ', 'unseen'));
    label.append(input, canvas, name);
    return label;
  }));
}

const isRollout = () => document.querySelector('[name=scope]:checked').value === 'rollout';

/** The map of a head of the layer that is chosen, or of all layers. */
function mapOf(head) {
  const {heads, rows, columns, weights, rollout} = shown.attention;
  if (isRollout()) return {rows, columns, values: rollout};
  const size = rows * columns;
  const first = ($('layer').value - 1) * heads * size;
  const ofHead = (h) => weights.subarray(first + h * size, first + (h + 1) * size);
  if (head !== MEAN) return {rows, columns, values: ofHead(head)};
  const values = new Float32Array(size);
  for (let h = 0; h < heads; h++) ofHead(h).forEach((value, i) => { values[i] += value / heads; });
  return {rows, columns, values};
}

function drawAll() {
  const rollout = isRollout();
  $('details').disabled = $('details').hidden = rollout;
  const {layers} = shown.attention;
  $('layer-number').textContent = `${$('layer').value} of ${layers}`;
  $('layer').setAttribute('aria-valuetext', `${$('layer').value} of ${layers}`);
  drawPicture();
  if (rollout) return;
  for (const label of $('heads').children) {
    const map = mapOf(Number(label.querySelector('input').value));
    draw(label.querySelector('canvas'), shown.picture, map, shown.box, THUMBNAIL);
  }
}

function drawPicture() {
  const on = $('toggle').getAttribute('aria-pressed') === 'true';
  const map = mapOf(head);
  draw($('picture'), shown.picture, on ? map : null, shown.box);
  $('caption').textContent = describeMap(map);
  $('picture').setAttribute('aria-label', on ? `${shown.name}. ${describeMap(map)}` : shown.name);
}

/** In words: whose attention it is, and where most of it goes. */
function describeMap({rows, columns, values}) {
  const peak = values.indexOf(Math.max(...values));
  const row = Math.floor(peak / columns) + 1;
  const column = peak % columns + 1;
  const heads = head === MEAN ? `mean of ${shown.attention.heads} heads` : `head ${head + 1}`;
  const whose = isRollout() ? 'All layers, one after the other (rollout)' : `Layer ${$('layer').value}, ${heads}`;
  return `${whose}. The brightest patch, in row ${row} of ${rows} and column ${column} of ` +
    `${columns}, gets ${percent(values[peak])} of the attention.`;
}

function toggle() {
  const on = $('toggle').getAttribute('aria-pressed') !== 'true';
  $('toggle').setAttribute('aria-pressed', String(on));
  drawPicture();
}
