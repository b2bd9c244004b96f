"""How many floating-point operations a ViT takes."""

from vit_jax.arguments import pair
from vit_jax.model import ViT


def flops_per_image(model: ViT) -> int:
    """Of one forward pass over one image of `image_size`: its matrix products, 2 a multiply-add.

    Training counts three times as much: the backward pass has two products for each one of the
    forward pass, its gradients by input and by parameter. What rematerialisation computes again
    does not count, as in the field's model FLOPs utilisation (https://arxiv.org/abs/2204.02311,
    appendix B).
    """
    (height, width), (patch_height, patch_width) = pair(model.image_size), pair(model.patch_size)
    patches = (height // patch_height) * (width // patch_width)
    tokens = patches + 1
    inner_dim = model.heads * model.dim_head
    projects = not (model.heads == 1 and model.dim_head == model.dim)
    attention = (
        3 * model.dim * inner_dim + 2 * tokens * inner_dim + projects * inner_dim * model.dim
    )
    layer = tokens * (attention + 2 * model.dim * model.mlp_dim)
    embedding = patches * model.channels * patch_height * patch_width * model.dim
    return 2 * (embedding + model.depth * layer + model.dim * model.num_classes)
