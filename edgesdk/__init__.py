"""edgesdk: a trained model to a measured, verified, reversible deployment on your own boards."""

__version__ = "0.1.0"
