"""Faults of the machine under a program: told from defects of ours, with what an operator can do about them.

At night such a fault stops the worker with nothing acknowledged; whoever starts it again (Kubernetes, systemd) finds
the frame where it was. A frame that fails for want of memory may be the cause itself, so that counts against the frame
(``by_frame``): after three workers it is rejected, and the stream goes on. A failing disk or GPU is no frame's doing.
"""

from __future__ import annotations

import errno
from dataclasses import dataclass


class MachineError(Exception):
    """The machine failed under the worker; the text says which frame was in hand, and what to do."""


@dataclass(frozen=True)
class Fault:
    """What to do about a fault, and whether the frame in hand may have caused it."""

    advice: str
    by_frame: bool


# torch.AcceleratorError came with 2.8; before it, and in libraries, such errors are a RuntimeError with these words.
GPU_WORDS = ("CUDA error", "CUDA driver", "cuDNN", "CUBLAS", "CUFFT", "HIP error", "NCCL", "NVML")
# What an error of the operating system means, by its numbers; the braces are for which file.
FILES = (
    ({errno.ENOSPC, errno.EDQUOT, errno.EFBIG}, "the disk is full, or a quota reached{}: make room and start again."),
    ({errno.EACCES, errno.EPERM, errno.EROFS}, "no permission{}: let this user in and start again."),
    ({errno.ENOENT}, "a file or folder is missing{}: is its disk mounted?"),
    (
        {errno.ENOTDIR, errno.EISDIR, errno.EEXIST},
        "a file stands where a folder should, or the reverse{}: name another.",
    ),
    ({errno.EADDRINUSE, errno.EADDRNOTAVAIL}, "a port or address cannot be had: does another program have it?"),
    ({errno.EMFILE, errno.ENFILE}, "too many open files: raise the limit (ulimit -n)."),
)
FULL = FILES[0][0]


def machine_fault(error: Exception) -> Fault | None:
    """Give the fault of the machine that an error stands for; None for what is more likely a defect of ours."""
    if isinstance(error, MemoryError):
        return Fault("out of memory. Give it more, or lower max_pixels.", by_frame=True)
    if isinstance(error, OSError):
        return Fault(_advice(error), by_frame=False)
    # By name and words, because a worker without torch must not import it to ask.
    kinds = {kind.__name__ for kind in type(error).__mro__}
    if "OutOfMemoryError" in kinds or "out of memory" in str(error):
        return Fault(
            "the GPU is out of memory. Is another program on it? Else run with device = cpu, or lower max_pixels.",
            by_frame=True,
        )
    if "AcceleratorError" in kinds or any(word in str(error) for word in GPU_WORDS):
        return Fault("the GPU failed: look at nvidia-smi and dmesg; device = cpu works without it.", by_frame=False)
    return None


def _advice(error: OSError) -> str:
    which = f" {error.filename}" if error.filename is not None else ""
    for numbers, advice in FILES:
        if error.errno in numbers:
            return advice.format(which)
    if isinstance(error, ConnectionError | TimeoutError):
        return f"a connection failed{which}: is the other side there?"
    return f"a file or disk failed{which}: look at its mount and dmesg, and start again."
