"""Mixup and CutMix over the global batch, however it is split over devices.

Each example is mixed with the next one in the global batch, the last with the first; the order of
examples is random already. So the mixtures are the same on any number of devices, even with one
example per device, at the cost of transferring a single image between neighbours.
"""

import jax
import jax.numpy as jnp
import numpy as np
import scipy.special
from jaxtyping import Array, Bool, Float, Key, UInt8

CELLS = 4096  # of the table that a Beta distribution is drawn from


def mix(
    images: UInt8[Array, 'b h w c'],
    targets: Float[Array, 'b num_classes'],
    keys: Key[Array, 'b'],
    *,
    mixup_alpha: float,
    cutmix_alpha: float,
    prob: float,
    switch_prob: float,
    axis_name: str | None = None,
) -> tuple[UInt8[Array, 'b h w c'], Float[Array, 'b num_classes']]:
    """Mixes each example with the next one, with its own random weight.

    Args:
      images, targets: of the examples.
      keys: one per example.
      mixup_alpha: the example's own weight is drawn from Beta(alpha, alpha), and the two images are
        averaged with it (https://arxiv.org/abs/1710.09412); 0 for no mixup.
      cutmix_alpha: likewise, but a rectangle of the other image is pasted in
        (https://arxiv.org/abs/1905.04899); 0 for no CutMix.
      prob: probability that an example is mixed at all.
      switch_prob: probability of CutMix, if both are on.
      axis_name: of the mapped axis over the devices that share the batch.

    Returns:
      The mixtures; targets are weighted by the actual shares of the images.
    """
    if not (mixup_alpha and cutmix_alpha):
        switch_prob = float(cutmix_alpha > 0)

    def mix_one(
        image: jax.Array, target: jax.Array, image2: jax.Array, target2: jax.Array, key: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        use_key, switch_key, mixup_key, cutmix_key, box_key = jax.random.split(key, 5)
        cuts = jax.random.bernoulli(switch_key, switch_prob)
        weight = jnp.float32(0)
        mixed = image
        if mixup_alpha:
            weight = _symmetric_beta(mixup_key, mixup_alpha)
            added = weight * image + (1 - weight) * image2
            mixed = jnp.round(added).astype(jnp.uint8)
        if cutmix_alpha:
            weight2 = _symmetric_beta(cutmix_key, cutmix_alpha)
            other = _random_rectangle(box_key, image, 1 - weight2)
            mixed = jnp.where(cuts, jnp.where(other[..., None], image2, image), mixed)
            weight = jnp.where(cuts, 1 - other.mean(), weight)
        uses = jax.random.bernoulli(use_key, prob)
        weight = jnp.where(uses, weight, 1)
        return jnp.where(uses, mixed, image), weight * target + (1 - weight) * target2

    others = next_in_batch(images, axis_name), next_in_batch(targets, axis_name)
    return jax.vmap(mix_one)(images, targets, *others, keys)


def next_in_batch(x: Array, axis_name: str | None = None) -> Array:
    """For each row, the next one in the global batch; for the last row, the first."""
    first = x[:1]
    if axis_name is not None:
        devices = jax.lax.axis_size(axis_name)
        first = jax.lax.ppermute(first, axis_name, [((i + 1) % devices, i) for i in range(devices)])
    return jnp.concatenate([x[1:], first])


def rectangle(
    image: UInt8[Array, 'h w c'], corner: Float[Array, '2'], size: Float[Array, '2']
) -> Bool[Array, 'h w']:
    """Which pixels lie in the rectangle with this corner (top, left) and size (height, width)."""
    height, width, _ = image.shape
    y, x = jnp.mgrid[:height, :width]
    low, high = corner, corner + size
    return (low[0] <= y) & (y < high[0]) & (low[1] <= x) & (x < high[1])


def _symmetric_beta(key: jax.Array, alpha: float) -> Float[Array, '']:
    """Draws from Beta(alpha, alpha), by a table of its inverse CDF, linear between the entries.

    `jax.random.beta` draws until it accepts, in loops whose length only the data decides: a GPU has
    to ask its host after every iteration, and several devices have to ask each other.
    """
    table = jnp.float32(scipy.special.betaincinv(alpha, alpha, np.linspace(0, 1, CELLS + 1)))
    place = CELLS * jax.random.uniform(key)
    cell = place.astype(jnp.int32)
    return table[cell] + (place - cell) * (table[cell + 1] - table[cell])


def _random_rectangle(
    key: jax.Array, image: UInt8[Array, 'h w c'], share: Float[Array, '']
) -> Bool[Array, 'h w']:
    """A rectangle of the image's aspect and about this share of its area, centred anywhere."""
    sides = jnp.array(image.shape[:2])
    size = jnp.round(jnp.sqrt(share) * sides)
    centre = jax.random.uniform(key, (2,)) * sides
    return rectangle(image, jnp.round(centre - size / 2), size)
