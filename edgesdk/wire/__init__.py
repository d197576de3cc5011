"""What host and agent must agree on. Python 3.7, standard library only: it runs on both sides."""
