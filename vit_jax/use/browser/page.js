// Shows the classes of the pictures that are chosen or dropped.

import {describe, predict} from './model.js';

const answers = document.querySelector('main');

async function show(files) {
  for (const file of files) {
    const figure = document.createElement('figure');
    const picture = document.createElement('img');
    picture.src = URL.createObjectURL(file);
    picture.alt = file.name;
    const caption = document.createElement('figcaption');
    caption.textContent = '…';
    figure.append(picture, caption);
    answers.prepend(figure);
    try {
      caption.replaceChildren(table(await predict(file)));
    } catch (error) {
      caption.textContent = error.message;
    }
  }
}

function table({predictions}) {
  const rows = document.createElement('table');
  for (const {class: name, probability} of predictions) {
    const row = rows.insertRow();
    row.insertCell().textContent = `${(100 * probability).toFixed(2)} %`;
    row.insertCell().textContent = name;
  }
  return rows;
}

document.querySelector('input').addEventListener('change', ({target}) => show(target.files));
document.addEventListener('dragover', (event) => event.preventDefault());
document.addEventListener('drop', (event) => {
  event.preventDefault();
  show(event.dataTransfer.files);
});
describe().then(
  ({name, classes, parameters}) => {
    const size = parameters.toLocaleString('en');
    const text = `${name}: ${classes.length} classes, ${size} parameters`;
    document.querySelector('#model').textContent = text;
  },
  (error) => (document.querySelector('#model').textContent = error.message),
);
