"""What host and agent must agree on. Python 3.7, standard library: it runs on both sides."""
