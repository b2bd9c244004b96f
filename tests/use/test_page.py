"""The page in a browser, Debian's chromium."""

import base64
import io
import os
import re
from pathlib import Path

import numpy as np
import pytest
from pictures import encode
from PIL import Image
from serving import DEPTH, HEADS, Running, small_predictor
from sklearn.datasets import load_sample_image

import vit_jax
from vit_jax.use.attention import patch_attention, rollout

CHROMIUM = '/usr/bin/chromium'
playwright = pytest.importorskip('playwright.sync_api', reason='the package playwright is missing')
if not Path(CHROMIUM).exists():
    pytest.skip(f'{CHROMIUM} is missing; apt-get install chromium', allow_module_level=True)
pytestmark = pytest.mark.filterwarnings('ignore::PIL.Image.DecompressionBombWarning')
FLAGS = ['--no-sandbox', '--use-fake-device-for-media-stream', '--use-fake-ui-for-media-stream']


@pytest.fixture(scope='module')
def predictor():
    return small_predictor()


@pytest.fixture(scope='module')
def url(predictor):
    with Running(predictor) as running:
        yield running.url


@pytest.fixture(scope='module')
def browser():
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def open_page(browser, url):
    """Opens the page; at the end, nothing may have gone wrong in it."""
    contexts, wrong = [], []

    def note(message):  # browsers log answers such as 422
        if message.type in ('error', 'warning') and 'Failed to load' not in message.text:
            wrong.append(message.text)

    def open_page(width=1240, height=820, **options):
        options = {'viewport': {'width': width, 'height': height}, **options}
        contexts.append(browser.new_context(**options))
        page = contexts[-1].new_page()
        page.set_default_timeout(15_000)
        page.on('console', note)
        page.on('pageerror', lambda error: wrong.append(str(error)))
        page.goto(url)
        page.wait_for_selector('[data-ready]')
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert wrong == []


@pytest.fixture(scope='module')
def photo(tmp_path_factory):
    path = tmp_path_factory.mktemp('photo') / 'china.png'
    Image.fromarray(load_sample_image('china.jpg')[:300, :400]).save(path)
    return path


def upload(page, *files):
    page.set_input_files('#file', [str(file) for file in files])
    page.wait_for_selector('#frame[aria-busy=false]')


def answer_to(page, photo):
    upload(page, photo)
    page.wait_for_selector('[data-state=answered]')


def percent(text):
    return float(re.search(r'([\d.]+) %', text)[1]) / 100


def test_shows_the_predictors_answer(open_page, predictor, photo):
    page = open_page()
    assert 'small' in page.title() and '4 heads' in page.text_content('#about')
    answer_to(page, photo)
    expected = predictor.top_k([photo], 5)[0]
    rows = page.locator('#best, #predictions li').all()
    for row, (name, probability) in zip(rows, expected, strict=True):
        assert row.locator('.class').text_content() == name
        assert percent(row.locator('.percent').text_content()) == pytest.approx(
            probability, abs=0.006
        )
        bar, fill = (row.locator(x).bounding_box()['width'] for x in ('.bar', '.bar span'))
        assert fill / bar == pytest.approx(probability, abs=0.01)
    assert page.text_content('#status').startswith(expected[0][0])


def test_slider_heads_and_rollout_show_their_attention_by_keyboard(open_page, predictor, photo):
    page = open_page()
    answer_to(page, photo)
    weights = predictor.attention([photo])
    maps = patch_attention(weights, predictor.model)[0]
    through_all = patch_attention(rollout(weights), predictor.model)[0]

    def check(expected, whose):
        caption = page.text_content('#caption')
        row, column = (int(x) - 1 for x in re.findall(r'(?:row|column) (\d+)', caption))
        assert caption.startswith(whose)
        assert percent(caption.split('gets')[1]) == pytest.approx(expected.max(), abs=0.006)
        assert expected[row, column] >= 0.99 * expected.max()
        assert page.get_attribute('#picture', 'aria-label') == f'china.png. {caption}'
        return page.evaluate("document.getElementById('picture').toDataURL()")

    drawings = [check(maps[-1].mean(0), f'Layer {DEPTH}, mean of {HEADS} heads.')]
    page.focus('#layer')
    page.keyboard.press('ArrowLeft')
    assert page.get_attribute('#layer', 'aria-valuetext') == f'{DEPTH - 1} of {DEPTH}'
    drawings.append(check(maps[-2].mean(0), f'Layer {DEPTH - 1}, mean'))
    page.keyboard.press('Tab')
    for head in range(HEADS):
        page.keyboard.press('ArrowRight')
        drawings.append(check(maps[-2, head], f'Layer {DEPTH - 1}, head {head + 1}.'))
    page.focus('[name=scope]:checked')
    page.keyboard.press('ArrowRight')
    drawings.append(check(through_all, 'All layers'))
    assert not page.is_visible('#layer')
    page.click('#toggle')
    assert page.get_attribute('#toggle', 'aria-pressed') == 'false'
    drawings.append(page.evaluate("document.getElementById('picture').toDataURL()"))
    assert len(set(drawings)) == len(drawings)


def test_the_drawing_is_brightest_where_the_attention_is(open_page, predictor, tmp_path):
    """On an even grey, so that brightness is attention."""
    noise = np.random.default_rng(3).integers(100, 156, (64, 64, 3), np.uint8)
    Image.fromarray(noise).resize((640, 640)).save(tmp_path / 'grey.png')
    page = open_page()
    answer_to(page, tmp_path / 'grey.png')
    drawn = page.evaluate("document.getElementById('picture').toDataURL()")
    drawn = Image.open(io.BytesIO(base64.b64decode(drawn.partition(',')[2]))).convert('L')
    patches = np.asarray(drawn.resize((4, 4), Image.Resampling.BOX)).ravel()
    expected = patch_attention(predictor.attention([tmp_path / 'grey.png']), predictor.model)
    expected = expected[0, -1].mean(0).ravel()
    assert patches.argmax() == expected.argmax()
    assert np.corrcoef(patches, expected**0.65)[0, 1] > 0.95


def test_errors_are_shown_and_the_answer_before_stays(open_page, photo, tmp_path):
    page = open_page()
    (tmp_path / 'notes.txt').write_text('no picture')
    (tmp_path / 'huge.png').write_bytes(encode(Image.new('1', (10_000, 10_000)), 'png'))
    with (tmp_path / 'heavy.png').open('wb') as heavy:
        heavy.truncate(11_000_000)
    for name, message in (
        ('notes.txt', 'notes.txt: expected a picture, but its format is unknown.'),
        ('huge.png', 'at most 16,777,216 pixels, got 10000 x 10000; make it smaller.'),
        ('heavy.png', 'expected at most 10 MB, got 11.0 MB.'),
    ):
        upload(page, tmp_path / name)
        page.wait_for_selector(f'#error:has-text("{name}")')
        assert message in page.text_content('#error')
    answer_to(page, photo)
    assert not page.is_visible('#error')
    best = page.text_content('#best')
    upload(page, tmp_path / 'notes.txt')
    page.wait_for_selector('#error:not([hidden])')
    assert page.text_content('#best') == best and page.is_visible('#attention')


@pytest.mark.parametrize('width, height', [(390, 844), (320, 600), (1240, 820), (2200, 1200)])
def test_fits_phones_and_desktops(open_page, photo, width, height):
    page = open_page(width, height)

    def check():
        assert page.evaluate('document.documentElement.scrollWidth') <= width
        for button in page.locator('button:visible, input[type=range]:visible').all():
            assert button.bounding_box()['height'] >= 44  # a thumb's

    check()
    answer_to(page, photo)
    check()
    picture, answer = (page.locator(x).bounding_box() for x in ('#picture', '#answer'))
    assert picture['height'] <= 0.73 * height
    beside = answer['x'] >= picture['x'] + picture['width']
    assert beside == (width > 859)


def test_a_photo_can_be_dropped_pasted_and_taken(open_page, photo):
    page = open_page()
    for event in ('drop', 'paste'):
        page.evaluate(
            """async ([event]) => {
                const canvas = new OffscreenCanvas(30, 20);
                canvas.getContext('2d').fillRect(0, 0, 10, 10);
                const file = new File([await canvas.convertToBlob()], `${event}.png`);
                const data = new DataTransfer();
                data.items.add(file);
                dispatchEvent(event === 'drop'
                    ? new DragEvent('drop', {dataTransfer: data, cancelable: true})
                    : new ClipboardEvent('paste', {clipboardData: data}));
            }""",
            [event],
        )
        page.wait_for_selector(f'#picture[aria-label^="{event}.png."]')
    page.click('#photograph')
    while not page.evaluate("document.getElementById('video').videoWidth"):
        page.wait_for_timeout(50)
    page.click('#shoot')
    page.wait_for_selector('#picture[aria-label^="photo.jpg."]')
    assert not page.is_visible('#camera')


def test_light_and_dark_have_contrast_and_everything_has_a_name(open_page, photo):
    grounds = []
    for scheme in ('light', 'dark'):
        page = open_page(color_scheme=scheme)
        answer_to(page, photo)
        grounds.append(page.evaluate('getComputedStyle(document.body).backgroundColor'))
        for selector in ('#about', '#best .percent', '#predictions .percent', '#caption', 'button'):
            assert contrast(page, selector) >= 4.5, (scheme, selector)
        unnamed = page.evaluate("""() => [...document.querySelectorAll('button, input, canvas')]
            .filter((x) => x.checkVisibility() && !x.closest('[aria-hidden]'))
            .filter((x) => x.ariaHidden !== 'true' && !x.textContent.trim() && !x.ariaLabel
                && !(x.labels?.length && x.labels[0].textContent.trim()))
            .map((x) => x.outerHTML)""")
        assert unnamed == []
        assert page.locator('h1').count() == 1 and page.get_attribute('html', 'lang') == 'en'
    light, dark = (np.mean([int(x) for x in re.findall(r'\d+', c)[:3]]) for c in grounds)
    assert light > 220 and dark < 40


def contrast(page, selector):
    """Of text with what is behind it, as WCAG defines it."""
    colours = page.locator(selector).first.evaluate("""(element) => {
        let behind = element;
        while (getComputedStyle(behind).backgroundColor === 'rgba(0, 0, 0, 0)')
            behind = behind.parentElement;
        return [getComputedStyle(element).color, getComputedStyle(behind).backgroundColor];
    }""")
    luminances = []
    for colour in colours:
        rgb = np.array([int(x) for x in re.findall(r'\d+', colour)[:3]]) / 255
        linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
        luminances.append(linear @ [0.2126, 0.7152, 0.0722] + 0.05)
    return max(luminances) / min(luminances)


def test_tab_reaches_every_control_in_order(open_page, photo):
    page = open_page()
    answer_to(page, photo)
    page.evaluate('document.activeElement.blur(); getSelection().collapse(document.body, 0)')
    reached = []
    for _ in range(7):
        page.keyboard.press('Tab')
        reached.append(page.evaluate('document.activeElement.id || document.activeElement.name'))
    assert reached[:6] == ['toggle', 'choose', 'photograph', 'scope', 'layer', 'head']


def test_the_page_names_no_other_server():
    folder = Path(vit_jax.__file__).parent / 'use' / 'serving' / 'page'
    assert len(os.listdir(folder)) == 7
    for path in folder.iterdir():
        text = path.read_text().replace('http://www.w3.org/2000/svg', '')
        assert 'http:' not in text and 'https:' not in text and ' style=' not in text
        assert len(text.splitlines()) <= 300
