"""What torch.save wrote (.pth, .pt, .pth.tar, .ckpt, .bin): read by torch.load(weights_only=True) within limits, not otherwise.

Before that the file is looked at without running anything of it: its archive, and every name that its pickle would call. What
trainings keep beside the tensors (numpy's scalars, argparse's Namespace, Lightning's dictionaries) is replaced by a thing that
does nothing; any other name is refused.
"""

from __future__ import annotations

import pickle
import pickletools
import tarfile
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from octc.core.errors import OctcError, first_line, shorten
from octc.core.faults import fault_of

LARGEST = 8 << 30  # bytes, of the file and of what an archive holds
ENTRIES = 200_000  # files of an archive, and tensors
PICKLE = 256 << 20  # bytes of the pickle itself
DEEPEST = 16  # dictionaries inside one another
# packages whose objects stand beside the tensors of many checkpoints; none of their code is run
BESIDE = (
    "argparse", "collections", "datetime", "lightning", "lightning_fabric", "numpy", "omegaconf", "pathlib",
    "pytorch_lightning", "typing",
)  # fmt: skip
Tensors = dict[str, torch.Tensor]


class Left:
    """In the place of an object that is not read."""

    def __init__(self, *_args: Any, **_more: Any) -> None: ...

    def __setstate__(self, _state: Any) -> None: ...

    def update(self, *_args: Any) -> None: ...


def read_torch_file(path: Path) -> dict[str, Any]:
    """The dictionaries of a file of torch.save: names to tensors, numbers, texts and further dictionaries.

    Raises:
        OctcError: E308 it would call something else than torch's own, E504 it is larger or deeper than any network, E307 it is
            damaged, or no dictionary; E310 no file.
    """
    _check_size(path)
    names = _strange_names(path)
    if refused := [name for name in names if name.partition(".")[0] not in BESIDE]:
        text = f"pickle refused: it would call {shorten(refused, 3, 'the first ones')}"
        hint = "where you trust it, save its state_dict as safetensors (safetensors.torch.save_file), on a machine you can lose"
        raise OctcError("OCT-E308", text, hint=hint, place=str(path))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the storages of older versions
            with torch.serialization.safe_globals([(Left, name) for name in names]):
                found = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        text = "pickle refused: it holds more than tensors, or is damaged"
        hint = "save its state_dict as safetensors where you trust it (safetensors.torch.save_file)"
        raise OctcError("OCT-E308", text, hint=hint, place=str(path), why=first_line(error)) from error
    except Exception as error:  # RuntimeError, EOFError, zipfile's, KeyError ...: whatever a damaged file leads to
        if (fault := fault_of(error, path)) is not None:
            raise fault from error
        text = f"not readable as weights: {first_line(error)}"
        raise OctcError("OCT-E307", text, hint="fetch the file again, or save it anew", place=str(path)) from error
    if not isinstance(found, Mapping):
        what = "a whole module" if isinstance(found, torch.nn.Module) else type(found).__name__
        text = f"it holds {what} and no dictionary of tensors"
        raise OctcError("OCT-E307", text, hint="torch.save(model.state_dict(), FILE)", place=str(path))
    count = sum(1 for _ in walk(found, str(path)))
    if count > ENTRIES:
        raise _too_much(path, f"{count} entries", ENTRIES)
    return dict(found)


def walk(value: Mapping[Any, Any], place: str, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every leaf of nested dictionaries with the keys that lead to it (E504 where they are deeper than `DEEPEST`)."""
    if len(path) > DEEPEST:
        text = f"dictionaries more than {DEEPEST} deep"
        raise OctcError("OCT-E504", text, hint="save the state_dict alone", place=place)
    for name, item in value.items():
        if isinstance(item, Mapping):
            yield from walk(item, place, (*path, str(name)))
        else:
            yield (*path, str(name)), item


def flat_tensors(value: Mapping[Any, Any], place: str) -> Tensors:
    """The tensors of nested dictionaries under their keys with points between ("state_dict.fc.weight").

    Raises:
        OctcError: E504 a tensor that claims more values than are stored: written out it would fill any memory.
    """
    found: Tensors = {}
    for path, item in walk(value, place):
        if not isinstance(item, torch.Tensor):
            continue
        name = ".".join(path)
        if item.layout == torch.strided and item.numel() > max(
            item.untyped_storage().nbytes() // max(item.element_size(), 1), 1
        ):
            text = f"{name} claims {item.numel()} values of {item.untyped_storage().nbytes()} bytes"
            raise OctcError("OCT-E504", text, hint="save it with .contiguous()", place=place)
        found[name] = item.detach()
    return found


def _check_size(path: Path) -> None:
    """Limits that need no look into the pickle: size, entries, what an archive becomes when it is unpacked."""
    try:
        size = path.stat().st_size
        with path.open("rb") as stream:
            head = stream.read(512)
    except OSError as error:
        if (fault := fault_of(error, path)) is not None:
            raise fault from error
        text = f"weights are not on disk: {error.strerror}"
        raise OctcError("OCT-E310", text, hint="--weights FILE", place=str(path)) from error
    if size > LARGEST:
        raise _too_much(path, f"{size} bytes", LARGEST)
    if head[257:262] == b"ustar":
        _refuse_packed(path)
    if head.startswith(b"PK"):
        _check_archive(path)


def _check_archive(path: Path) -> None:
    try:
        with zipfile.ZipFile(path) as archive:
            infos = archive.infolist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        text = f"not readable as weights: {first_line(error)}"
        raise OctcError("OCT-E307", text, hint="fetch the file again, or save it anew", place=str(path)) from error
    whole = sum(info.file_size for info in infos)
    if len(infos) > ENTRIES:
        raise _too_much(path, f"{len(infos)} entries", ENTRIES)
    if whole > LARGEST:
        raise _too_much(path, f"{whole} bytes unpacked", LARGEST)
    if largest := max((info.file_size for info in infos if info.filename.endswith(".pkl")), default=0):
        if largest > PICKLE:
            raise _too_much(path, f"a pickle of {largest} bytes", PICKLE)
    elif any(info.filename.endswith(".weights.h5") for info in infos):
        hint = "convert the network to ONNX (tf2onnx), then octc import FILE.onnx"
        raise OctcError("OCT-E307", f"{path.name} is a network of Keras, not weights of PyTorch", hint=hint, place=str(path))
    else:
        text = f"a zip archive without a pickle of torch: {shorten([info.filename for info in infos], 3, 'the first ones')}"
        raise OctcError("OCT-E307", text, hint="unpack it, and give the file of weights in it", place=str(path))


def _refuse_packed(path: Path) -> None:
    """A .tar that was packed by hand around a checkpoint (.pth.tar of torch.save is none)."""
    try:
        with tarfile.open(path) as archive:
            names = [member.name for member, _ in zip(archive, range(50), strict=False)]
    except (tarfile.TarError, OSError):
        return
    if "storages" not in names and "pickle" not in names:  # torch before 0.1.10 wrote such ones
        text = f"a tar archive that holds {shorten(names, 3, 'the first ones')}"
        raise OctcError("OCT-E307", text, hint=f"tar xf {path.name}, then give the file of weights in it", place=str(path))


def _strange_names(path: Path) -> list[str]:
    """What the pickle would call besides torch's own, by reading its opcodes alone."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return sorted(set(torch.serialization.get_unsafe_globals_in_checkpoint(str(path))))
    except Exception:  # not a zip archive: files of before 2020, whose pickles stand one after the other
        return sorted(set(_globals_of(path)))


def _globals_of(path: Path) -> Iterator[str]:
    """Names in the first pickles of an old file that torch does not know; the loader itself refuses what this misses."""
    known = ("torch", "collections.OrderedDict", "__builtin__", "builtins", "_codecs.encode")  # the loader knows what of them
    with path.open("rb") as stream:
        for _ in range(4):  # a magic number, a version, the machine, then what was saved
            texts: list[str] = []
            try:
                for opcode, argument, _at in pickletools.genops(stream):
                    if isinstance(argument, str):
                        texts.append(argument)
                    name = None
                    if opcode.name == "GLOBAL":
                        name = str(argument).replace(" ", ".", 1)
                    elif opcode.name == "STACK_GLOBAL" and len(texts) > 1:
                        name = ".".join(texts[-2:])
                    if name is not None and not name.startswith(known):
                        yield name
            except (ValueError, IndexError, KeyError, EOFError, OverflowError, UnicodeError):
                return


def _too_much(path: Path, what: str, limit: int) -> OctcError:
    return OctcError("OCT-E504", f"{what}: the limit is {limit}", hint="save the state_dict alone", place=str(path))
