"""Networks in the cache of the Hugging Face hub, written as the hub's own command does."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

VIT = {
    **{"architectures": ["ViTForImageClassification"], "model_type": "vit", "image_size": 224, "patch_size": 4},
    **{"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32},
    "id2label": {str(label): f"label {label}" for label in range(10)},
}


def cache(home: Path, repository: str, files: dict[str, Any], revision: str = "main", commit: str = "0f1e") -> Path:
    place = home / "hub" / f"models--{repository.replace('/', '--')}"
    folder = place / "snapshots" / commit
    folder.mkdir(parents=True)
    (place / "refs").mkdir(exist_ok=True)
    (place / "refs" / revision).write_text(commit)
    for name, content in files.items():
        (folder / name).write_text(json.dumps(content))
    return folder
