"""A server for a trained model: the page, the JSON API, dynamic batching."""
