"""Checkpoints: reading, checking and writing the weights of the reference model.

Reads safetensors, and PyTorch's ``.pt``/``.pth`` with ``weights_only=True``: a pickle that would run code is
refused. A PyTorch file may hold the state dict plain or nested, and its names may carry wrappers' prefixes
(see :data:`NESTED_KEYS` and :data:`PREFIXES`). Nothing but tensors of the model's own names and shapes, all
finite, is ever accepted.
"""

from __future__ import annotations

import json
import pickle
import warnings
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from xformer_mobile.errors import CheckpointError, UsageError
from xformer_mobile.files import file_sha256, write_file
from xformer_mobile.reference import PATCH, XFormer
from xformer_mobile.spec import VARIANTS, Anchors, ImageSize, ModelConfig, check_labels

__all__ = ["Checkpoint", "checkpoint_bytes", "load_checkpoint", "resample_context", "save_checkpoint"]

NESTED_KEYS = ("state_dict_ema", "model_ema", "ema", "ema_state_dict", "state_dict", "model_state_dict", "model")
"""Keys under which a training checkpoint holds the weights; the averaged (EMA) ones are preferred."""

PREFIXES = ("module.", "_orig_mod.")
"""What DistributedDataParallel and torch.compile put in front of every name."""

METADATA_KEY = "xformer_mobile"
"""The safetensors metadata entry that holds the model's configuration as JSON."""

AVERAGED_COUNT = "n_averaged"
"""What torch.optim.swa_utils.AveragedModel adds to the weights."""

MAX_FILE_BYTES = 2**30
"""A training checkpoint of this model with optimizer state is under 100 MB; a larger file is not one."""

TASK_KEYS = {"head.fc.weight": "classify", "head.predictors.0.weight": "detect", "head.classifier.weight": "segment"}
"""The tensor that only one task's head has."""

FIRST_CONTEXT = "backbone.stages.0.1.blocks.0.attention.w_context"

CONFIGURING = {"backbone.stage2.0.project.conv.weight": 4, "backbone.stages.0.1.project_in.weight": 4, FIRST_CONTEXT: 3}
"""The tensors whose shapes give the variant and the input size, with their ranks."""

DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
"""What weights may be stored as; all of them are read as float32."""

BATCH_COUNT = "num_batches_tracked"
"""How a BatchNorm's count of batches is named. It takes no part in inference, and older files lack it."""


@dataclass(frozen=True)
class Checkpoint:
    """A loaded checkpoint.

    ``model`` is in eval mode; ``sha256`` is that of the file; ``source`` says in words which part of the file
    was used; ``trained_size`` is the input size that the stored W_C grids belong to.
    """

    model: XFormer
    sha256: str
    source: str
    trained_size: ImageSize


def checkpoint_bytes(model: XFormer, *, metadata: Mapping[str, str] | None = None) -> bytes:
    """The weights as safetensors, with the configuration in the metadata. Same weights, same bytes."""
    from safetensors.torch import save

    config = model.config
    description = {
        "task": config.task,
        "variant": config.variant.name,
        "image_size": [config.image_size.height, config.image_size.width],
        "labels": list(config.labels),
        "anchors": config.anchors,
    }
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    content = save(tensors, metadata={**(metadata or {}), METADATA_KEY: json.dumps(description, sort_keys=True)})
    return _with_sorted_metadata(content)


def _with_sorted_metadata(content: bytes) -> bytes:
    """safetensors writes the entries of its metadata in an arbitrary order; put them in one."""
    start = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:start])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)  # the format's alignment of the tensors
    return len(text).to_bytes(8, "little") + text + content[start:]


def save_checkpoint(model: XFormer, path: Path, *, metadata: Mapping[str, str] | None = None) -> None:
    """Write :func:`checkpoint_bytes` to a file, whole or not at all.

    Raises:
        OutputError: the file can't be written.
    """
    write_file(path, checkpoint_bytes(model, metadata=metadata))


def load_checkpoint(
    path: Path,
    *,
    task: str | None = None,
    variant: str | None = None,
    image_size: ImageSize | None = None,
    labels: tuple[str, ...] | None = None,
) -> Checkpoint:
    """Read a checkpoint into a reference model.

    The task, the variant, the number of classes and the input size come from the file. ``task`` and
    ``variant``, where given, must agree with it; ``image_size`` resamples W_C to another size; ``labels``
    replaces the file's.

    Raises:
        CheckpointError: the file is missing, truncated, foreign or hostile, has missing, unexpected or
            wrongly shaped tensors, or values that are not finite.
        UsageError: ``labels`` has another number of classes than the file.
    """
    digest = _digest(path)
    state, description, source = _read(path)
    config = _config_of(path, state, description, task, variant)
    with torch.device("meta"):  # names and shapes only
        _check(path, state, XFormer(config))
    if labels is not None:
        if len(labels) != config.num_classes:
            raise UsageError(
                f"{len(labels)} labels for {path.name}, which has {config.num_classes} classes; give one label a class"
            )
        config = replace(config, labels=check_labels(labels))
    target = image_size or config.image_size
    weights = {name: tensor.float() for name, tensor in state.items() if not name.endswith(BATCH_COUNT)}
    counts = {name: tensor for name, tensor in state.items() if tensor.dtype == torch.int64}
    model = XFormer(replace(config, image_size=target))
    model.load_state_dict(resample_context({**weights, **counts}, target))
    return Checkpoint(model.eval(), digest, source, config.image_size)


def resample_context(state: Mapping[str, Tensor], image_size: ImageSize) -> dict[str, Tensor]:
    """Resample every W_C, (heads, h, w), bilinearly to the grid of patches of ``image_size``.

    The other tensors are returned as they are. XFA's sums over tokens are means, so no rescaling is due.
    """
    resampled = dict(state)
    for name, tensor in state.items():
        if not name.endswith(".w_context"):
            continue
        stage = int(name.split(".")[2])  # backbone.stages.<stage>...
        grid = image_size.at_stride((8 << stage) * PATCH)
        if tensor.shape[1:] != grid:
            resampled[name] = F.interpolate(tensor[None], size=grid, mode="bilinear", align_corners=False)[0]
    return resampled


# ---- reading ---------------------------------------------------------------------------------------------


def _digest(path: Path) -> str:
    try:
        if path.is_dir():
            raise CheckpointError(f"checkpoint {path} is a directory; give a .safetensors or .pth file")
        if path.exists() and not path.is_file():
            raise CheckpointError(f"checkpoint {path} is a device or a pipe; give a .safetensors or .pth file")
        size = path.stat().st_size
        if size > MAX_FILE_BYTES:
            raise CheckpointError(f"checkpoint {path} has {size} bytes, more than any XFormer ({MAX_FILE_BYTES})")
        return file_sha256(path)
    except OSError as error:
        raise CheckpointError(f"can't read checkpoint {path}: {error.strerror or error}") from error


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, Any], str]:
    """The tensors by their plain names, the stored configuration (may be empty), and what was read, in words."""
    from safetensors import SafetensorError, safe_open

    try:
        with path.open("rb") as file:
            start = file.read(9)
    except OSError as error:
        raise CheckpointError(f"can't read checkpoint {path}: {error.strerror or error}") from error
    if not start:
        raise CheckpointError(f"checkpoint {path} is empty")
    if start[8:9] == b"{":
        try:
            with safe_open(path, framework="pt") as stored:
                state = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118 (not a dict)
                metadata = stored.metadata() or {}
        except (SafetensorError, OSError, ValueError, RuntimeError) as error:
            raise CheckpointError(f"checkpoint {path} is not a whole safetensors file: {_line(error)}") from error
        return state, _description(path, metadata.get(METADATA_KEY)), "safetensors"
    try:
        if start.startswith(b"PK"):
            with zipfile.ZipFile(path) as archive:
                size = sum(entry.file_size for entry in archive.infolist())
            if size > MAX_FILE_BYTES:  # PyTorch would unpack it
                raise ValueError(f"it unpacks to {size} bytes, more than any XFormer ({MAX_FILE_BYTES})")
        with path.open("rb") as file, warnings.catch_warnings():  # by its path, PyTorch would go by its name
            warnings.simplefilter("ignore")  # of old formats; what matters is what is in it
            content = torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"checkpoint {path} is refused: it is not a whole file of tensors and nothing else "
            f"(weights_only=True: {_line(error)}); save the model's state_dict() as safetensors"
        ) from error
    except Exception as error:
        raise CheckpointError(
            f"checkpoint {path} is neither a whole safetensors file nor a whole PyTorch file: {_line(error)}"
        ) from error
    return _state_of(path, content)


def _shown(name: Any) -> str:
    """A name out of a file, fit for a message: one line, not long."""
    text = name if isinstance(name, str) and name.isprintable() else repr(name)
    return text if len(text) <= 100 else f"{text[:100]}..."


def _line(error: BaseException) -> str:
    """The first sentence of an error's message, on one line."""
    text = " ".join(str(error).split()) or type(error).__name__
    text = text.partition("WeightsUnpickler error: ")[2] or text  # PyTorch's reason, after its advice
    return text.split(". ")[0].split(" Check the documentation")[0][:200]


def _description(path: Path, text: str | None) -> dict[str, Any]:
    if text is None:
        return {}
    try:
        description = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"checkpoint {path}: its {METADATA_KEY} metadata is not JSON: {_line(error)}") from error
    if not isinstance(description, dict):
        raise CheckpointError(f"checkpoint {path}: its {METADATA_KEY} metadata is not a JSON object")
    return description


def _state_of(path: Path, content: Any) -> tuple[dict[str, Tensor], dict[str, Any], str]:
    source = "state dict"
    for key in NESTED_KEYS:
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping) and content[key]:
            content, source = content[key], f"state dict under {key!r}"
            break
    if not isinstance(content, Mapping):
        raise CheckpointError(f"checkpoint {path} holds a {type(content).__name__}, not a state dict")
    state: dict[str, Tensor] = {}
    content = {name: value for name, value in content.items() if name != AVERAGED_COUNT}
    for name, value in content.items():
        if not isinstance(name, str) or not isinstance(value, Tensor):
            raise CheckpointError(
                f"checkpoint {path}: entry {_shown(name)} of its {source} is a {type(value).__name__}, not a tensor; "
                f"nested state dicts are looked for under {', '.join(NESTED_KEYS)}"
            )
        if value.layout is not torch.strided or value.is_nested or value.is_quantized or value.is_meta:
            raise CheckpointError(f"checkpoint {path}: {_shown(name)} is not a plain dense tensor")
        plain = name
        while plain.startswith(PREFIXES):
            plain = plain.split(".", 1)[1]
        state[plain] = value
    if len(state) != len(content):
        raise CheckpointError(f"checkpoint {path}: some names are the same once {' and '.join(PREFIXES)} are dropped")
    return state, {}, source


# ---- checking --------------------------------------------------------------------------------------------


def _config_of(
    path: Path, state: Mapping[str, Tensor], description: Mapping[str, Any], task: str | None, variant: str | None
) -> ModelConfig:
    """The configuration that the file is for, from its tensors' shapes and, where present, its metadata."""
    found = [name for key, name in TASK_KEYS.items() if key in state]
    if len(found) != 1 or FIRST_CONTEXT not in state:
        some = ", ".join(_shown(name) for name in sorted(state)[:3]) or "nothing"
        raise CheckpointError(f"checkpoint {path} is not an XFormer: it holds {len(state)} tensors ({some}, ...)")
    for name in (task, description.get("task")):
        if name is not None and name != found[0]:
            raise CheckpointError(f"checkpoint {path} is for the task {found[0]!r}, not {_shown(name)!r}")
    head = next(key for key, name in TASK_KEYS.items() if name == found[0])
    for name, rank in {**CONFIGURING, head: 2 if found[0] == "classify" else 4}.items():
        if name not in state:
            raise CheckpointError(f"checkpoint {path} is not an XFormer: it lacks {name}")
        if state[name].dim() != rank:
            raise CheckpointError(f"checkpoint {path}: {name} has rank {state[name].dim()}, not {rank}")
    labels = description.get("labels")
    if not isinstance(labels, list | None):
        raise CheckpointError(f"checkpoint {path}: its labels are a {type(labels).__name__}, not a list")
    try:
        anchors = _anchors(description)
        return ModelConfig.create(
            found[0],
            variant=_variant_of(path, state, description, variant),
            num_classes=state[head].shape[0] // len(anchors[0]) - 5 if found[0] == "detect" else state[head].shape[0],
            image_size=_trained_size(state),
            labels=labels,
            anchors=anchors,
        )
    except UsageError as error:
        raise CheckpointError(f"checkpoint {path}: {_line(error)}") from error


def _variant_of(path: Path, state: Mapping[str, Tensor], description: Mapping[str, Any], variant: str | None) -> str:
    def stem_and_dim(row: str) -> tuple[int, int]:
        return VARIANTS[row].stage2, VARIANTS[row].stages[0].dim

    stage2, project_in, _ = CONFIGURING
    shape = state[stage2].shape[0], state[project_in].shape[0]
    fitting = [row for row in VARIANTS if stem_and_dim(row) == shape]
    stored = description.get("variant")
    for name in (variant, stored):
        if name is not None and name not in fitting:
            has = f"those of {fitting[0]}" if fitting else "of no variant"
            raise CheckpointError(f"checkpoint {path} does not fit {_shown(name)}: its widths are {has}")
    if not fitting:
        raise CheckpointError(f"checkpoint {path} fits no variant; known: {', '.join(VARIANTS)}")
    return variant or stored or fitting[0]


def _trained_size(state: Mapping[str, Tensor]) -> ImageSize:
    _, height, width = state[FIRST_CONTEXT].shape
    return ImageSize(height * 8 * PATCH, width * 8 * PATCH)


def _anchors(description: Mapping[str, Any]) -> Anchors:
    stored = description.get("anchors")
    if stored is None:
        return ModelConfig.create("detect").anchors
    try:
        anchors = tuple(tuple((float(width), float(height)) for width, height in scale) for scale in stored)
    except (TypeError, ValueError, OverflowError):
        anchors = ()
    if len(anchors) != 3 or any(len(scale) != len(anchors[0]) or not scale for scale in anchors):
        raise UsageError("its anchors are not three scales of equally many (width, height)")
    if not all(0 < side < 100 for scale in anchors for anchor in scale for side in anchor):
        raise UsageError("its anchors are not fractions of the input's shorter side")
    return anchors


def _check(path: Path, state: Mapping[str, Tensor], model: XFormer) -> None:
    """Names, then shapes, then values."""
    expected = model.state_dict()
    missing = [name for name in expected if name not in state and not name.endswith(BATCH_COUNT)]
    unexpected = [name for name in state if name not in expected]
    shapes = [
        f"{name} {tuple(state[name].shape)} for {tuple(tensor.shape)}"
        for name, tensor in expected.items()
        if name in state and state[name].shape != tensor.shape
    ]
    differences = [
        _listed(title, names)
        for title, names in (("missing", missing), ("unexpected", unexpected), ("of another shape", shapes))
        if names
    ]
    if differences:
        raise CheckpointError(
            f"checkpoint {path} does not fit {model.config.variant.name} for {model.config.task}: "
            + "; ".join(differences)
        )
    for name, tensor in state.items():
        if name.endswith(BATCH_COUNT):
            continue
        if tensor.dtype not in DTYPES:
            raise CheckpointError(
                f"checkpoint {path}: {name} is {_dtype(tensor.dtype)}; weights are {', '.join(map(_dtype, DTYPES))}"
            )
        values = tensor.float()
        wrong = int((~torch.isfinite(values)).sum())
        if wrong:
            raise CheckpointError(f"checkpoint {path}: {name} has {wrong} values that are NaN or infinite")
        if name.endswith("running_var") and bool((values < 0).any()):
            raise CheckpointError(f"checkpoint {path}: {name} has negative variances")


def _listed(title: str, names: list[str], most: int = 5) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return f"{len(names)} {title} ({', '.join(map(_shown, names[:most]))}{more})"


def _dtype(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
