"""Progress of a network's fit as a file: weights, the best epoch's weights, the optimiser's state and the epochs so far.

Rank 0 alone reads and writes. What it read goes to the other workers over the process group, so that all begin with
the same epoch and no shared disk is needed. Needs torch and numpy only.
"""

from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch
import torch.distributed as dist
from torch import Tensor

from cropray.nets.norm import world_size
from cropray.training.deep.loop import Evaluation, FitResult, FitState
from cropray.training.progress_file import ProgressFile

WEIGHTS: Final = "weights/"
BEST: Final = "best/"
OPTIMIZER: Final = "optimizer/"
CONFUSION: Final = "confusion"
VALIDATION: Final = "validation"


@dataclass(frozen=True, slots=True)
class NetworkProgress:
    """Keeps the state of a fit in a file."""

    file: ProgressFile
    device: torch.device
    """Of this worker; what workers tell each other passes through it."""

    def load(self) -> FitState | None:
        """The state of the last epoch that was kept; the same on all workers, which call this together."""
        data = self.file.read() if _is_first() else None
        saved = self.file.unpack(_from_first(data, self.device))
        if saved is None:
            return None
        tensors = {name: torch.from_numpy(array.copy()) for name, array in saved.arrays.items() if name != CONFUSION}
        validation = None
        if (said := saved.state[VALIDATION]) is not None:
            untrained = tuple(said["untrained"])
            validation = Evaluation(**{**said, "untrained": untrained, CONFUSION: saved.arrays[CONFUSION]})
        return FitState(
            weights=_below(WEIGHTS, tensors),
            optimizer=_below(OPTIMIZER, tensors),
            history=tuple(saved.state["history"]),
            best=FitResult(_below(BEST, tensors), (), saved.state["best_epoch"], validation),
        )

    def save(self, state: FitState) -> None:
        """Keep the state of an epoch, if it is its turn."""
        if len(state.history) % self.file.every or not _is_first():
            return
        best = state.best
        arrays = {
            **_arrays(WEIGHTS, state.weights),
            **_arrays(OPTIMIZER, state.optimizer),
            **_arrays(BEST, best.weights),
        }
        validation = None if best.validation is None else asdict(best.validation)
        if validation is not None:
            arrays[CONFUSION] = validation.pop(CONFUSION)
        self.file.save(arrays, {"history": state.history, "best_epoch": best.best_epoch, VALIDATION: validation})


def _arrays(prefix: str, tensors: dict[str, Tensor]) -> dict[str, npt.NDArray[Any]]:
    return {f"{prefix}{name}": value.detach().cpu().contiguous().numpy() for name, value in tensors.items()}


def _below(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def _is_first() -> bool:
    return world_size() == 1 or dist.get_rank() == 0


def _from_first(data: bytes | None, device: torch.device) -> bytes | None:
    """What rank 0 gave, on every worker."""
    if world_size() == 1:
        return data
    size = torch.tensor([-1 if data is None else len(data)], device=device)
    dist.broadcast(size, 0)
    if int(size) < 0:
        return None
    buffer = torch.empty(int(size), dtype=torch.uint8, device=device)
    if data is not None:
        buffer.copy_(torch.from_numpy(np.frombuffer(data, np.uint8).copy()))
    dist.broadcast(buffer, 0)
    return buffer.cpu().numpy().tobytes()
