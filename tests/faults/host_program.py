"""Deploys a bundle for each line on standard input, in a child of its own that may be killed.

A child is forked from this process, which has imported all it needs: two hundred kills then
cost no two hundred starts of an interpreter.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from edgesdk.bundle import read_bundle
from edgesdk.deploy import deploy_bundle
from edgesdk.devices import connect, resolve_device


def deploy(bundle: str, url: str) -> None:
    device = resolve_device(url)
    with connect(device) as session:
        deploy_bundle(read_bundle(Path(bundle)), session, device=device)


def main() -> None:
    for line in sys.stdin:
        bundle, url = line.rstrip("\n").split("\t")
        child = os.fork()
        if child == 0:
            status = 1
            try:
                deploy(bundle, url)
                status = 0
            finally:
                os._exit(status)
        print(child, flush=True)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)


if __name__ == "__main__":
    main()
