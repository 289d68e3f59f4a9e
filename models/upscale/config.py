"""Config of the upscaler: its kind, and by how much."""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from infra.config import Section

SCALES = {"animevideov3": (2, 3, 4), "x4plus": (4,), "x4plus-anime": (4,)}
"""What Real-ESRGAN's models enlarge by."""


class RealesrganConfig(Section):
    """Real-ESRGAN, frame by frame."""

    kind: Literal["realesrgan"] = "realesrgan"
    model: Literal["animevideov3", "x4plus", "x4plus-anime"] = "animevideov3"
    """`animevideov3` is small and made for video; `x4plus` invents detail, forty times slower."""


class LanczosConfig(Section):
    """Plain resampling, which adds no detail."""

    kind: Literal["lanczos"] = "lanczos"


def _kind_stated(value: Any) -> Any:
    if isinstance(value, str):
        return {"kind": value}
    return {"kind": "realesrgan", **value} if isinstance(value, dict) else value


UpscalerConfig = Annotated[
    Annotated[RealesrganConfig | LanczosConfig, Field(discriminator="kind")],
    BeforeValidator(_kind_stated),
]


def check_scale(config: UpscalerConfig, scale: int) -> None:
    """Raise ValueError when the upscaler does not enlarge by `scale`."""
    if isinstance(config, RealesrganConfig) and scale not in SCALES[config.model]:
        allowed = ", ".join(map(str, SCALES[config.model]))
        raise ValueError(f"scale {scale}: model {config.model} of realesrgan allows {allowed}")
