"""Check for packages that only some models need."""

import importlib.util

from infra.errors import UserError


def need(module: str, requirement: str, what: str) -> None:
    """Raise UserError unless a module is installed.

    Args:
        module: its name for import.
        requirement: what to install.
        what: what needs it, such as a config key.
    """
    if importlib.util.find_spec(module) is None:
        raise UserError(f"{what}: needs a package that is not installed; pip install {requirement}")


def need_cuda(num_gpus: float, what: str) -> None:
    """Raise UserError when GPUs are asked for that onnxruntime cannot use."""
    import onnxruntime

    if num_gpus and "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        raise UserError(
            f"{what}: num_gpus is {num_gpus:g}, but this onnxruntime has no CUDA; "
            "pip install onnxruntime-gpu in place of onnxruntime, or set num_gpus=0"
        )
