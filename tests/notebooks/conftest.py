"""What the tests of several notebooks ask of an executed copy."""

import pytest


@pytest.fixture(scope="session")
def alts():
    """The descriptions of a notebook's figures, in order."""

    def found(notebook) -> list[str]:
        outputs = [out for cell in notebook.cells for out in cell.get("outputs", [])]
        return [out.metadata["image/svg+xml"]["alt"] for out in outputs if "image/svg+xml" in out.get("data", {})]

    return found
