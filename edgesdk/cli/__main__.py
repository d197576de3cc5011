"""Lets ``python -m edgesdk.cli`` stand for ``edgesdk``, where that is not on the path."""

from edgesdk.cli import main

if __name__ == "__main__":
    main()
