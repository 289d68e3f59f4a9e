"""The generating systems there are, as the choices of the key `system` of `generate`."""

from ray_jobs.generation.loong import LoongConfig

AnySystemConfig = LoongConfig
"""The union of all settings, told apart by `kind`; today there is one system."""
