"""One pure step over any number of devices."""
