"""What `import ftkit` costs, and which way imports go."""

import subprocess
import sys


def run(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout


def test_import_loads_no_torch():
    code = "import sys, ftkit.cli, ftkit.models, ftkit.data, ftkit.methods.registry, ftkit.memory;"
    code += "print({'torch', 'transformers'} & set(sys.modules))"
    assert run(code).strip() == "set()"


def test_import_takes_under_300_ms():
    code = "import time; t = time.perf_counter(); import ftkit; print(time.perf_counter() - t)"
    assert min(float(run(code)) for _ in range(3)) < 0.3


def test_every_public_name_can_be_imported():
    code = "import ftkit; [getattr(ftkit, n) for n in ftkit.__all__]; import ftkit.data, ftkit.models as m;"
    code += "[getattr(ftkit.data, n) for n in ftkit.data.__all__]; [getattr(m, n) for n in m.__all__];"
    code += "import ftkit.methods as p; assert all(callable(getattr(p, n)) or n == 'METHODS' for n in p.__all__);"
    code += "import ftkit.memory as e; assert all(callable(getattr(e, n)) for n in e.__all__)"
    run(code)


def test_an_unknown_name_is_an_attribute_error():
    assert run("import ftkit; print(hasattr(ftkit, 'nonsense'))").strip() == "False"


def test_imports_go_one_way():
    done = subprocess.run(["lint-imports"], capture_output=True, text=True, env=_path_of_python())
    assert done.returncode == 0, done.stdout


def _path_of_python():
    import os
    from pathlib import Path

    return {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
