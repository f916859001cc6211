"""What the tests of several notebooks ask of an executed copy."""

import pytest


@pytest.fixture(scope="session")
def alts():
    """The descriptions of a notebook's figures, in order."""

    def found(notebook) -> list[str]:
        outputs = [out for cell in notebook.cells for out in cell.get("outputs", [])]
        return [out.metadata["image/svg+xml"]["alt"] for out in outputs if "image/svg+xml" in out.get("data", {})]

    return found


@pytest.fixture(scope="session")
def tall_cells():
    """The ids of code cells that a reader would have to scroll through."""

    def found(notebook) -> list[str]:
        shown = [cell for cell in notebook.cells if cell.cell_type == "code"]
        shown = [cell for cell in shown if not set(cell.metadata.get("tags", [])) & {"remove-cell", "colab-install"}]
        return [cell.id for cell in shown if len(cell.source.splitlines()) > 10]

    return found
