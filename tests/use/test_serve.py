import asyncio
import base64
import concurrent.futures
import re
import signal
import time

import httpx
import jsonschema
import numpy as np
import processes
import pytest
from pictures import encode
from PIL import Image
from prometheus_client.parser import text_string_to_metric_families
from serving import (
    DEPTH,
    HEADS,
    PATCH,
    SIZE,
    Held,
    Running,
    as_form,
    photographs,
    save_model,
    small_predictor,
    wait_until,
)

from benchmarks.malformed import form, request
from benchmarks.serving import send_requests
from vit_jax.errors import InputError
from vit_jax.use.attention import patch_attention, rollout
from vit_jax.use.serving.server import bind
from vit_jax.use.serving.uploads import Limits


@pytest.fixture(scope='module')
def weights(tmp_path_factory):
    return save_model(tmp_path_factory.mktemp('model'))


@pytest.fixture(scope='module')
def predictor():
    return small_predictor()


@pytest.fixture(scope='module')
def running(predictor):
    limits = Limits(pictures=8, picture_bytes=3_000_000, request_bytes=6_000_000, waiting=16)
    with Running(predictor, limits) as running:
        yield running


@pytest.fixture(scope='module')
def client(running):
    with httpx.Client(base_url=running.url, timeout=30) as client:
        yield client


def metrics(client):
    families = text_string_to_metric_families(client.get('/metrics').text)
    return {
        (sample.name, *sorted(sample.labels.values())): sample.value
        for family in families
        for sample in family.samples
    }


def test_the_answer_is_the_predictors(client, predictor):
    images = photographs(3)
    answer = client.post('/predict', params={'top_k': 3}, files=as_form(images))
    assert answer.status_code == 200
    answers = answer.json()['answers']
    assert [x['name'] for x in answers] == ['0.png', '1.png', '2.png']
    for each, expected in zip(answers, predictor.top_k(images, 3), strict=True):
        found = [(x['class'], x['probability']) for x in each['predictions']]
        assert [name for name, _ in found] == [name for name, _ in expected]
        np.testing.assert_allclose([p for _, p in found], [p for _, p in expected], atol=1e-6)
        assert 'attention' not in each


def test_attention_is_the_predictors(client, predictor):
    images = photographs(2)
    answer = client.post('/predict?attention=true&top_k=7', files=as_form(images))
    weights = predictor.attention(images)
    expected = patch_attention(weights, predictor.model)
    through_all = patch_attention(rollout(weights), predictor.model)
    for i, each in enumerate(answer.json()['answers']):
        maps = each['attention']
        side = SIZE // PATCH
        shape = (maps['layers'], maps['heads'], maps['rows'], maps['columns'])
        assert shape == (DEPTH, HEADS, side, side)
        peaks = np.array(maps['peaks'])
        np.testing.assert_allclose(peaks, expected[i].max((-1, -2)), rtol=1e-5)
        stored = np.frombuffer(base64.b64decode(maps['weights']), np.uint8).reshape(shape)
        np.testing.assert_allclose(
            stored / 255 * peaks[..., None, None], expected[i], atol=peaks.max() / 255
        )
        rolled = np.frombuffer(base64.b64decode(maps['rollout']), np.uint8).reshape(side, side)
        peak = maps['rollout_peak']
        np.testing.assert_allclose(rolled / 255 * peak, through_all[i], atol=peak / 255)
        assert sum(x['probability'] for x in each['predictions']) == pytest.approx(1, abs=1e-5)


def test_answers_are_as_openapi_describes_them(client):
    described = client.get('/openapi.json').json()
    jsonschema.Draft202012Validator.check_schema(described['components'])
    assert described['paths'].keys() == {'/predict', '/model', '/healthz', '/metrics'}
    responses = described['paths']['/predict']['post']['responses']
    form, text = as_form(photographs(2)), ('picture', ('notes.txt', b'no picture'))
    for status, files, query in (
        (200, form, 'attention=true'),
        (422, [*form, text], ''),
        (400, form, 'top_k=0'),
        (400, form, 'attention=yes'),
        (413, form * 5, ''),
        (413, [('picture', ('a.png', bytes(3_000_001)))], ''),
        (415, None, ''),
    ):
        answer = client.post(f'/predict?{query}', files=files)
        assert answer.status_code == status, answer.text
        schema = responses[str(status)]['content']['application/json']['schema']
        whole = {**schema, 'components': described['components']}
        jsonschema.validate(answer.json(), whole, cls=jsonschema.Draft202012Validator)
        wrong = answer.json().get('error', '')
        assert 'expected' in wrong if status not in (200, 422) else not wrong


@pytest.mark.filterwarnings('ignore::PIL.Image.DecompressionBombWarning')
def test_a_bad_picture_costs_the_others_of_its_request_nothing(client, predictor):
    images = photographs(2)
    good = as_form(images)
    huge = encode(Image.new('1', (10_000, 10_000)), 'png')
    begun = time.monotonic()
    answer = client.post(
        '/predict',
        files=[good[0], ('x', ('ä.txt', b'text')), ('y', ('huge.png', huge)), good[1]],
    )
    assert time.monotonic() - begun < 5
    assert answer.status_code == 422
    first, text, large, last = answer.json()['answers']
    assert text == {
        'name': 'ä.txt',
        'error': 'ä.txt: expected a picture, but its format is unknown',
    }
    assert large['error'] == (
        'huge.png: expected a picture of at most 16,777,216 pixels, got 10000 x 10000; make it '
        'smaller'
    )
    expected = predictor(images).max(-1)
    for answer, probability in zip((first, last), expected, strict=True):
        assert answer['predictions'][0]['probability'] == pytest.approx(probability, abs=1e-6)


def test_a_large_jpeg_is_decoded_reduced_with_the_same_answer(client, predictor, tmp_path):
    (tmp_path / 'large.jpg').write_bytes(
        encode(photographs(1)[0].resize((5000, 3800), Image.Resampling.BICUBIC), quality=70)
    )
    answer = client.post('/predict?top_k=7', files={'a': (tmp_path / 'large.jpg').read_bytes()})
    found = {x['class']: x['probability'] for x in answer.json()['answers'][0]['predictions']}
    expected = predictor([tmp_path / 'large.jpg'])[0]
    np.testing.assert_allclose([found[name] for name in predictor.class_names], expected, atol=0.02)
    too_large = encode(Image.new('L', (9000, 6000)), quality=20)
    answer = client.post('/predict', files={'a': too_large}).json()['answers'][0]
    assert 'at most 50,000,000 pixels, got 9000 x 6000' in answer['error']


def test_clients_at_the_same_time_share_batches_and_each_gets_its_own(running, client, predictor):
    images = photographs(12)
    expected = predictor.top_k(images, 1)
    before = metrics(client)[('vit_jax_batch_pictures_count',)]

    def ask(number):
        answer = client.post('/predict?top_k=1', files=as_form(images[number : number + 1]))
        return answer.json()['answers'][0]['predictions'][0]

    with concurrent.futures.ThreadPoolExecutor(12) as pool, Held(running) as model:
        answers = [pool.submit(ask, number) for number in range(12)]
        wait_until(lambda: running.answering.num_admitted == 12)
        wait_until(lambda: model.num_decoded == 12)
        model.let_go()
        for answer, [(name, probability)] in zip(answers, expected, strict=True):
            assert answer.result(30)['class'] == name
            assert answer.result()['probability'] == pytest.approx(probability, abs=1e-6)
    batches = metrics(client)[('vit_jax_batch_pictures_count',)] - before
    assert batches == 2  # the first, alone or not, and those that came meanwhile


def test_a_full_queue_answers_503_with_retry_after_and_loses_nobody(running, client):
    content = request(form(encode(photographs(1)[0], 'png')))
    before = metrics(client)

    async def overload(model):
        clients = asyncio.create_task(send_requests(running.port, 60, 1.0, [content]))
        while running.answering.num_admitted < 16:
            await asyncio.sleep(0.05)
        async with httpx.AsyncClient(base_url=running.url) as other:
            refused = await other.post('/predict', files=as_form(photographs(1)))
            assert refused.status_code == 503 and int(refused.headers['retry-after']) >= 1
            assert 'the queue is full; try again in' in refused.json()['error']
            assert (await other.get('/healthz')).status_code == 200
        assert running.answering.num_admitted == 16
        model.let_go()
        return await clients

    with Held(running) as model:
        ends = asyncio.run(overload(model))['ends']
    assert ends.keys() == {'200', '503'} and ends['503'] >= 44 and ends['200'] >= 16
    after = metrics(client)
    for status, more in (('200', 0), ('503', 1)):
        key = ('vit_jax_requests_total', '/predict', status)
        assert after[key] - before.get(key, 0) == ends[status] + more
    assert after[('vit_jax_waiting_pictures',)] == 0


def test_sigterm_under_load_answers_all_that_was_accepted(weights):
    process = processes.start('-m', 'vit_jax', 'serve', weights, '--port', '0')
    port = int(re.match(r'http://127.0.0.1:(\d+)', process.stdout.readline())[1])
    content = request(form(encode(photographs(1)[0], 'png')))

    async def load():
        clients = asyncio.create_task(send_requests(port, 24, 60.0, [content]))
        await asyncio.sleep(1.0)
        process.send_signal(signal.SIGTERM)
        return (await clients)['ends']

    ends = asyncio.run(load())
    assert ends.pop('200') >= 24 and ends.pop('refused') == 24
    assert set(ends) <= {'503'}
    output, errors = process.communicate(timeout=30)
    assert process.returncode == 0, errors
    assert output == '' and errors == 'compiling the model …\n'


@pytest.mark.parametrize(
    'options, message',
    [
        (['--host', '203.0.113.7'], 'expected a free address, got 203.0.113.7, port 8000'),
        (['--max-megabytes', '0'], '0.0 is not in the range'),
        ([], 'no such file or run directory'),
    ],
)
def test_wrong_options_end_with_one_line(options, message, weights, capsys):
    from vit_jax.__main__ import main

    path = str(weights) if options else 'nothing.npz'
    assert main(['serve', path, *options]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count('\n') == 1


def test_an_address_in_use_is_named():
    with bind('127.0.0.1', 0) as taken:
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(InputError, match=f'port {port}: Address already in use'):
            bind('127.0.0.1', port)
