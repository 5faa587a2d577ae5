"""Whether this machine's GPUs can be used by the libraries that are installed."""

import ctypes
import importlib.metadata
import importlib.util
from pathlib import Path
from typing import Final

import torch

from cropray.core.errors import ConfigError

_DRIVER: Final = Path("/proc/driver/nvidia/version")


def describe_gpu() -> str:
    """Name of the first GPU, and versions of what drives it.

    Raises:
        ConfigError: torch cannot use it.
    """
    if torch.version.cuda is None:
        raise ConfigError(f"torch {torch.__version__} is built without CUDA; install the one of PyPI")
    if not torch.cuda.is_available():
        driver = _DRIVER.read_text().splitlines()[0] if _DRIVER.exists() else "no NVIDIA driver is loaded"
        raise ConfigError(
            f"torch {torch.__version__} with CUDA {torch.version.cuda} cannot use the GPU ({driver}); CUDA 13 needs a "
            f"driver of 580 or newer"
        )
    name = torch.cuda.get_device_name(0)
    return f"{name}, torch {torch.__version__} with CUDA {torch.version.cuda}, {describe_nccl(torch.version.cuda)}"


def describe_nccl(cuda: str) -> str:
    """Version of the NCCL that is loaded, and a word where it is not the one that belongs to torch.

    torch's and xgboost's own packages write it to the same path, so that the one installed last is there for both.

    Args:
        cuda: version of CUDA that torch is built for.
    """
    package = f"nvidia-nccl-cu{cuda.partition('.')[0]}"
    found = importlib.util.find_spec("nvidia.nccl")
    folder = next(iter(found.submodule_search_locations or ()), None) if found else None
    if folder is None:
        return "no NCCL"
    version = loaded_version(Path(folder, "lib", "libnccl.so.2"))
    try:
        own = importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return f"NCCL {version}"
    if version == own:
        return f"NCCL {version}"
    return (
        f"NCCL {version} in the place of torch's {own}: another package wrote over it; for torch's own, "
        f"pip install --force-reinstall --no-deps {package}=={own}"
    )


def loaded_version(library: Path) -> str:
    """What an NCCL library says of itself."""
    number = ctypes.c_int()
    ctypes.CDLL(str(library)).ncclGetVersion(ctypes.byref(number))
    return f"{number.value // 10_000}.{number.value // 100 % 100}.{number.value % 100}"
