"""The user's own callable, named `package.module:callable`: import it and check its parameters."""

from __future__ import annotations

import importlib
import importlib.metadata
import inspect
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from operator import attrgetter
from typing import Any

from .channel import ProviderError, explain
from .native import installed_version

_BY_NAME = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)


@dataclass(frozen=True, slots=True)
class Callee:
    """A callable, and its name in a scenario."""

    name: str
    function: Callable[..., Any]
    distributions: tuple[str, ...] = ()
    """Distributions whose versions are reported; if empty, they follow from the first part of the name."""

    @classmethod
    def find(cls, name: str) -> Callee:
        """Import the callable. Raises ProviderError if the module or the callable is missing or fails."""
        module_name, _, path = name.partition(":")
        try:
            module = importlib.import_module(module_name)
        except Exception as error:
            if isinstance(error, ModuleNotFoundError) and error.name and _is_part(error.name, module_name):
                raise ProviderError(
                    f"the provider {name} needs the module {error.name}; install it in the environment "
                    f"that is measured, or add its folder to the import path"
                ) from None
            raise ProviderError(f"the module {module_name} cannot be imported: {explain(error)}") from error
        try:
            function = attrgetter(path)(module)
        except AttributeError:
            raise ProviderError(f"{module_name} has no {path}; correct provider = {name!r}") from None
        if not callable(function):
            raise ProviderError(f"{name} is a {type(function).__name__}, which cannot be called")
        return cls(name, function)

    def arguments(self, offered: Mapping[str, Any]) -> dict[str, Any]:
        """The offered arguments, if the callable accepts all of them and requires no others.

        Raises ProviderError for the names that it does not accept: a setting that is left out would not be
        applied.
        """
        try:
            parameters = inspect.signature(self.function).parameters.values()
        except (TypeError, ValueError):
            raise ProviderError(f"{self.name} has no readable signature; {_REMEDY}") from None
        takes = {parameter.name for parameter in parameters if parameter.kind in _BY_NAME}
        takes_any = any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters)
        refused = [name for name in offered if name not in takes and not takes_any]
        if refused:
            raise ProviderError(f"{self.name} does not accept {', '.join(refused)}; {_REMEDY}")
        needed = [parameter.name for parameter in parameters if _is_needed(parameter)]
        unknown = [name for name in needed if name not in offered]
        if unknown:
            raise ProviderError(f"{self.name} needs {', '.join(unknown)}, which is not passed; {_REMEDY}")
        return dict(offered)

    def versions(self) -> dict[str, str]:
        """Names and versions of its distributions, and of LangChain's core if that is in use."""
        return {name: installed_version(name) for name in self.distributions or self._installed()}

    def _installed(self) -> list[str]:
        package = self.name.partition(":")[0].partition(".")[0]
        names = importlib.metadata.packages_distributions().get(package, [])
        return [*names, "langchain-core"] if "langchain_core" in sys.modules else names


_REMEDY = "write a function that accepts every name, applies it and returns the chat model"


def _is_part(found: str, module: str) -> bool:
    """True if the missing module is the requested one or one of its parent packages."""
    return module == found or module.startswith(f"{found}.")


def _is_needed(parameter: inspect.Parameter) -> bool:
    variable = (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)
    return parameter.default is inspect.Parameter.empty and parameter.kind not in variable
