"""gate"""

import typer

app = typer.Typer()


@app.command()
def gate() -> None:
    """Fail a build where a release became slower."""
