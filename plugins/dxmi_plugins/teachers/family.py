"""What families have in common where they do not say otherwise."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

from dxmi.api import Conditions, Levels, NetworkCall, Space
from dxmi_plugins.teachers.levels import levels_of
from dxmi_plugins.teachers.spaces import space_of


class Family(ABC):
    """A ``TeacherFamily`` that reads noise levels off the scheduler, and states off the autoencoder.

    Students are pipelines of the same class as their teacher's.
    """

    pipelines: tuple[str, ...]
    part: str
    networks: str

    @abstractmethod
    def takes(self, pipeline: Any) -> bool:
        """Whether the pipeline's network is one of this family."""

    @abstractmethod
    def call(self, pipeline: Any) -> NetworkCall:
        """How the network is called. Raises ConfigError if it has inputs that nothing fills."""

    @abstractmethod
    def conditions(self, pipeline: Any) -> Conditions:
        """What the network has to be told."""

    def levels(self, pipeline: Any) -> Levels:
        """Those of its scheduler, whichever kind it is. Raises ConfigError if that is not supported."""
        return levels_of(pipeline.scheduler)

    def space(self, pipeline: Any) -> Space:
        """The latents of its autoencoder; pixels without one. Raises ConfigError if it is not supported."""
        return space_of(pipeline)

    def student(self, pipeline: Any, network: Any, scheduler: Any) -> Any:
        """A pipeline of the same class, with this network and scheduler in place of its own."""
        return type(pipeline)(**{**pipeline.components, self.part: network, "scheduler": scheduler})
