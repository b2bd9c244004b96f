"""The model: the ViT, its options, variants and shapes."""
