"""Measure a bundle on a device: latency with its uncertainty, conditions, accuracy, verdict."""
