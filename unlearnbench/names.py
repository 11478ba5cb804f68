"""Types of the names that come from outside and become paths or labels."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

LONGEST_NAME = 120
_NAME = r"[A-Za-z0-9_-][A-Za-z0-9._-]*"

# Every string from outside that is a part of a path has this type, and is checked where it is read.
Name = Annotated[str, Field(pattern=f"^{_NAME}$", max_length=LONGEST_NAME)]
# The path of a file below a folder consists of such names.
Place = Annotated[str, Field(pattern=f"^{_NAME}(/{_NAME})*$", max_length=4 * LONGEST_NAME)]
# That of a file of the store, below an output folder, begins with the store.
StorePlace = Annotated[str, Field(pattern=f"^store(/{_NAME})+$", max_length=4 * LONGEST_NAME)]
# A label is text for readers, escaped wherever it goes; in a path the name that `label_slug` gives stands for it.
Label = Annotated[str, Field(min_length=1, max_length=200)]
