"""The floating-point operations that a ViT takes."""

from vit_jax.model.shapes import num_tokens, pair
from vit_jax.model.vit import ViT


def flops_per_image(model: ViT) -> int:
    """Of a forward pass over one image of `image_size`: its matrix products, 2 per multiply-add.

    Training takes three times as many: for each product of the forward pass the backward pass has
    two, the gradients by input and by parameter. What rematerialisation recomputes does not count,
    as in the field's model FLOPs utilisation (https://arxiv.org/abs/2204.02311, appendix B).
    """
    patch_height, patch_width = pair(model.patch_size)
    tokens = num_tokens(model)
    patches = tokens - model.num_prefix
    inner_dim = model.heads * model.dim_head
    feed_forward = (2 + model.gated) * model.dim * model.mlp_dim
    projects = not (model.heads == 1 and model.dim_head == model.dim)
    attention = (
        3 * model.dim * inner_dim + 2 * tokens * inner_dim + projects * inner_dim * model.dim
    )
    layers = model.depth * tokens * (attention + feed_forward)
    embedding = patches * model.channels * patch_height * patch_width * model.dim

    pooled = model.dim * (2 if model.pool == 'cls_gap' else 1)
    head = pooled * model.representation_size
    head += (model.representation_size or pooled) * model.num_classes
    head *= 1 + model.distilled
    if model.pool == 'map':
        keys_and_values = 2 * model.dim * inner_dim + 2 * inner_dim  # a token, with the one query
        query = 2 * model.dim * inner_dim  # and the output projection
        head += patches * keys_and_values + query + 2 * model.dim * model.mlp_dim
    return 2 * (embedding + layers + head)
