"""Fields whose values are names in a registry: checked against it, plugins' names with ours."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

import pydantic
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

from models.adaptation import ADAPTATIONS
from models.conditions import CONDITIONS, PROTOCOLS
from models.fusion import FUSIONS


@dataclass(frozen=True, eq=False)
class Registered:
    """Annotation of a field that holds a name: `Annotated[str, Registered(NETWORKS)]`.

    Attributes:
        registry: where the name must be; it is asked when a value is checked, not before.
        listed: the command that lists the names, for help in place of all of them.
    """

    registry: Mapping[str, Any]
    listed: str = ""

    def names(self) -> list[str]:
        """All names that are registered now."""
        return list(self.registry)

    def __get_pydantic_core_schema__(self, source: Any, handler: pydantic.GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_after_validator_function(self._known, handler(source))

    def _known(self, name: str) -> str:
        if name not in self.registry:
            names = ", ".join(f"'{known}'" for known in self.registry)
            raise PydanticCustomError("unknown_name", "Input should be one of {expected}", {"expected": names})
        return name


ConditionName = Annotated[str, Registered(CONDITIONS, "avmend list conditions")]
ProtocolName = Annotated[str, Registered(PROTOCOLS)]
FusionName = Annotated[str, Registered(FUSIONS)]
AdaptationName = Annotated[str, Registered(ADAPTATIONS)]
