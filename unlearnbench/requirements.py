"""The plugins that a manifest requires: which of them are installed, and what to do about the others."""

from __future__ import annotations

import shlex
from importlib.metadata import PackageNotFoundError, version

from packaging.requirements import InvalidRequirement, Requirement

from unlearnbench.manifest import ManifestFile


def check_requires(file: ManifestFile) -> None:
    """Note what of `requires` is not installed here, or in another version."""
    for index, text in enumerate(file.sections.get("requires", ())):
        if message := _unmet(text):
            file.fault(("requires", index), message)


def _unmet(text: str) -> str:
    """Return what is wrong with one requirement, "" if it is met."""
    try:
        requirement = Requirement(text)
    except InvalidRequirement as error:
        reason = str(error).splitlines()[0]
        return f'{text!r} is not a requirement as pip takes it, such as "unlearnbench-zoo>=0.1": {reason}'
    if requirement.marker is not None and not requirement.marker.evaluate():
        return ""
    install = f"\n  pip install {shlex.quote(text)}"
    try:
        here = version(requirement.name)
    except PackageNotFoundError:
        return f"{requirement.name} is not installed{install}"
    # Somebody who has a version before a release wants it to count.
    if not requirement.specifier.contains(here, prereleases=True):
        return f"{requirement.name} {here} is installed, {requirement.specifier} is required{install}"
    return ""
