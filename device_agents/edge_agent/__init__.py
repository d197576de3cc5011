"""The agent: what runs on a device. Python 3.7, standard library only."""

__version__ = "0.1.0"
