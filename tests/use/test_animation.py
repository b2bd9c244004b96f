import jax
import numpy as np
import pytest

import vit_jax
from vit_jax.use import animation
from vit_jax.use.animation import HEIGHT, PICTURE, WIDTH, animate


@pytest.fixture(scope='module')
def predictor(tmp_path_factory):
    model = vit_jax.ViT(
        image_size=8, patch_size=4, num_classes=3, dim=16, depth=2, heads=2, mlp_dim=24, dim_head=8
    )
    variables = jax.jit(model.init)(jax.random.key(0), np.zeros((1, 8, 8, 3), np.float32))
    path = tmp_path_factory.mktemp('weights') / 'vit.safetensors'
    vit_jax.save_weights(path, model, variables, format='seed')
    return vit_jax.Predictor(path, mean=(0.5,), std=(0.5,))


def test_animation_shows_the_picture_its_attention_and_the_answer(predictor, monkeypatch):
    picture = np.zeros((8, 8, 3), np.uint8)
    picture[:4, :4], picture[4:, 4:] = (250, 0, 0), (0, 0, 250)
    attention = np.full((1, 2, 2, 5, 5), 0.01, np.float32)
    attention[:, 0, :, 0, 1] = attention[:, 1, :, 0, 4] = 1  # the red patch, then the blue one
    monkeypatch.setattr(predictor, 'attention', lambda _: attention)
    monkeypatch.setattr(animation, 'FRAMES_PER_SECOND', 4.0)
    frames = [np.asarray(frame) for frame in animate(predictor, picture)]
    assert {frame.shape for frame in frames} == {(HEIGHT, WIDTH, 3)}
    assert 8 < len(frames) / 4 < 13
    left, top, side = PICTURE
    red, blue = (top + side // 4, left + side // 4), (top + 3 * side // 4, left + 3 * side // 4)
    for shown in (frames[0], frames[-1]):
        np.testing.assert_allclose(shown[red], (250, 0, 0), atol=2)
        np.testing.assert_allclose(shown[blue], (0, 0, 250), atol=2)
    one, other = (  # layers in which one patch is bright, and the other dark
        max(frames, key=lambda frame: sign * (int(frame[red][0]) - int(frame[blue][2])))
        for sign in (1, -1)
    )
    np.testing.assert_allclose(one[red], (250, 0, 0), atol=2)
    np.testing.assert_allclose(other[blue], (0, 0, 250), atol=2)
    assert one[blue].max() < 125 and other[red].max() < 125
