"""What is done with a model: predict, evaluate, preview."""
