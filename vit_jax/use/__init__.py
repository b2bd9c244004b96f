"""What is done with a model: predict, evaluate, report, preview, plot."""
