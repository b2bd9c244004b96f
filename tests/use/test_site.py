"""The static page answers like the predictor, in Debian's Chromium."""

import base64
import functools
import http.server
import json
import shutil
import subprocess
import threading
from pathlib import Path

import numpy as np
import pytest
from conftest import peer
from exporting import unchecked, write_models
from PIL import Image
from sklearn.datasets import load_sample_image

import vit_jax
from vit_jax.__main__ import main
from vit_jax.data.preprocess import Preprocessing
from vit_jax.use.site import ONNXRUNTIME_WEB

CHROMIUM = Path('/usr/bin/chromium')


@pytest.fixture(scope='module')
def sites(tmp_path_factory):
    """A folder with the sites of an RGB and a grey model, 'map' and 'gap'."""
    for package in ('playwright', 'jax2onnx', 'onnxruntime'):
        peer(package)
    for program in (CHROMIUM, 'npm'):
        if not shutil.which(program):
            pytest.skip(f'{program} is not installed')
    seen = subprocess.run(['npm', 'view', '--prefer-offline', ONNXRUNTIME_WEB, 'version'])
    if seen.returncode:
        pytest.skip(f'npm cannot reach {ONNXRUNTIME_WEB}')
    folder = tmp_path_factory.mktemp('sites')
    write_models(folder, 'map', 'gap')
    with unchecked():
        assert main(['export', f'{folder}/map.safetensors', '-o', f'{folder}/map']) == 0
        runtime = ['--runtime', f'{folder}/map']
        assert main(['export', f'{folder}/gap.safetensors', '-o', f'{folder}/gap', *runtime]) == 0
    return folder


@pytest.fixture(scope='module')
def page(sites):
    """A tab of a browser, at the root of a server of the sites."""
    from playwright.sync_api import sync_playwright

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    handler = functools.partial(Handler, directory=sites)
    with (
        http.server.ThreadingHTTPServer(('127.0.0.1', 0), handler) as server,
        sync_playwright() as playwright,
    ):
        threading.Thread(target=server.serve_forever, daemon=True).start()
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=['--no-sandbox'])
        page = browser.new_page()
        page.goto(f'http://127.0.0.1:{server.server_port}/')
        yield page
        browser.close()
        server.shutdown()


ANSWER = """
async ([site, name, data]) => {
  const {answer} = await import(`/${site}/model.js`);
  const bytes = Uint8Array.from(atob(data), (c) => c.charCodeAt(0));
  const {predictions, attention} = await answer(new File([bytes], name));
  const [weights, rollout] = [attention.weights, attention.rollout].map((x) => Array.from(x));
  return {predictions, attention: {...attention, weights, rollout}};
}
"""


def answer(page, site, path):
    data = base64.b64encode(path.read_bytes()).decode()
    return page.evaluate(ANSWER, [site, path.name, data])


@pytest.fixture(scope='module')
def pictures(tmp_path_factory):
    folder = tmp_path_factory.mktemp('pictures')
    photo = Image.fromarray(load_sample_image('china.jpg'))
    photo.save(folder / 'photo.jpg', quality=90)
    exif = photo.getexif()
    exif[274] = 6  # orientation: on its side
    photo.resize((300, 211)).save(folder / 'turned.jpg', exif=exif)
    photo.crop((0, 0, 60, 420)).save(folder / 'tall.png')
    photo.convert('L').resize((31, 17)).save(folder / 'grey.png')
    photo.resize((7, 5)).convert('P').save(folder / 'palette.gif')
    return sorted(folder.iterdir())


def test_the_site_answers_like_the_predictor(sites, page, pictures):
    for site in ('map', 'gap'):
        predictor = vit_jax.Predictor(sites / f'{site}.safetensors')
        for path in pictures:
            found = answer(page, site, path)
            probabilities = {x['class']: x['probability'] for x in found['predictions']}
            expected = dict(predictor.top_k([path], 5)[0])
            assert list(probabilities) == list(expected)
            assert probabilities == pytest.approx(expected, abs=1e-4), (site, path.name)
            _, each, together = predictor.classify_with_attention([predictor.preprocess(path)])
            maps = found['attention']
            shape = tuple(maps[axis] for axis in ('layers', 'heads', 'rows', 'columns'))
            assert shape == each.shape[1:]
            np.testing.assert_allclose(maps['weights'], each.ravel(), atol=1e-4)
            np.testing.assert_allclose(maps['rollout'], together.ravel(), atol=1e-4)


def test_a_visitor_sees_the_classes_of_a_picture_and_what_is_wrong(sites, page, pictures, tmp_path):
    (bad := tmp_path / 'text.png').write_text('no picture')
    visit, failures = page.context.browser.new_page(), []
    visit.on('pageerror', lambda error: failures.append(str(error)))
    visit.goto(f'{page.url}map/')
    visit.locator('#main[data-ready=true]').wait_for()
    assert '5 classes' in visit.inner_text('#about')
    assert 'no picture leaves it' in visit.inner_text('#privacy')
    visit.set_input_files('#file', pictures[0])
    visit.locator('#main[data-state=answered]').wait_for()
    predictor = vit_jax.Predictor(sites / 'map.safetensors')
    expected = predictor.top_k([pictures[0]], 5)[0]
    names = visit.locator('#answer .class').all_inner_texts()
    assert names == [name for name, _ in expected]
    visit.set_input_files('#file', bad)
    visit.get_by_text('text.png: expected a picture').wait_for()
    assert not failures
    visit.close()


def test_the_site_resizes_like_pillow_bit_for_bit(page):
    rng = np.random.default_rng(0)
    cases, expected = [], []
    for _ in range(200):
        channels, fraction = int(rng.choice([1, 3])), float(rng.choice([0, 0.875, 1, 0.3]))
        height, width, *wanted = map(int, rng.integers(1, 90, 4))
        pixels = rng.integers(0, 256, (height, width, channels), np.uint8)
        preprocessing = Preprocessing(tuple(wanted), channels, (0.5,), (0.5,), fraction)
        expected.append(preprocessing.resize(pixels).ravel().tolist())
        cases.append([pixels.ravel().tolist(), [height, width, channels], wanted, fraction])
    got = page.evaluate(
        """async (cases) => {
          const {centreBox, resize} = await import('/map/resize.js');
          return JSON.stringify(JSON.parse(cases).map(([pixels, size, wanted, fraction]) => {
            const [height, width] = size;
            const box = fraction ? centreBox(width, height, wanted, fraction) : undefined;
            return Array.from(resize(pixels, size, wanted, box));
          }));
        }""",
        json.dumps(cases),
    )
    for case, one, other in zip(cases, json.loads(got), expected, strict=True):
        assert one == other, case[1:]


def test_the_site_says_what_is_wrong(sites, page, pictures, tmp_path):
    from playwright.sync_api import Error

    (tmp_path / 'text.png').write_text('no picture')
    with pytest.raises(Error, match='text.png: expected a picture'):
        answer(page, 'map', tmp_path / 'text.png')
    shutil.copytree(sites / 'map', sites / 'damaged')
    data = bytearray((sites / 'damaged/model.onnx').read_bytes())
    data[len(data) // 2] ^= 1
    (sites / 'damaged/model.onnx').write_bytes(data)
    with pytest.raises(Error, match='the file was damaged or replaced'):
        answer(page, 'damaged', pictures[0])


def test_only_an_earlier_site_is_replaced(sites, tmp_path, capsys):
    command = ['export', f'{sites}/map.safetensors', '--runtime', f'{sites}/map', '-o']
    (tmp_path / 'mine').mkdir()
    (tmp_path / 'mine/thesis.tex').write_text('')
    assert main([*command, f'{tmp_path}/mine']) == 2
    assert 'expected a new folder, or one that an earlier' in capsys.readouterr().err
    shutil.copytree(sites / 'map', tmp_path / 'site')
    before = {path.name: path.read_bytes() for path in (tmp_path / 'site').iterdir()}
    assert main([*command[:-2], str(tmp_path), '-o', f'{tmp_path}/site']) == 2
    assert 'expected the folder dist of onnxruntime-web' in capsys.readouterr().err
    after = {path.name: path.read_bytes() for path in (tmp_path / 'site').iterdir()}
    assert after == before and len(list(tmp_path.iterdir())) == 2
