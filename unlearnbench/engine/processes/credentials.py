"""What this user's credentials are, so that they can be kept from foreign code: variables, and files that hold some.

No list of them is complete. A variable is taken for one by its name, as libraries and clouds name theirs, or because
its value is an address with a password.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

# Families of variables that say who somebody is or where that is written, and words that names of secrets end with.
_FAMILIES = r"(AWS|AZURE|ARM|GOOGLE|GCP|GCLOUD|CLOUDSDK|BOTO|KUBE|KUBERNETES|SSH|RAY_AUTH|DOCKER_AUTH)(?![A-Z])"
_WORDS = r"(?<![A-Z])(TOKENS?|KEYS?|SECRETS?|PASSWORDS?|PASSWD|PASSPHRASE|CREDENTIALS?|COOKIE)(_(PATH|FILE|JSON|B64))?"
_NAME = re.compile(rf"^{_FAMILIES}|^(.*_)?{_WORDS}$|^(NETRC|KUBECONFIG|PGPASS\w*)$", re.IGNORECASE)
_ADDRESS = re.compile(r"://[^/@\s]+:[^/@\s]+@")
# Below the home folder, where tools and libraries keep theirs.
_AT_HOME = (
    ".aws",
    ".azure",
    ".boto",
    ".cache/huggingface/token",
    ".cache/huggingface/stored_tokens",
    ".config/gcloud",
    ".config/gh",
    ".config/git/credentials",
    ".config/rclone",
    ".docker/config.json",
    ".git-credentials",
    ".gnupg",
    ".kaggle",
    ".kube",
    ".netrc",
    ".pypirc",
    ".ray/auth_token",
    ".s3cfg",
    ".ssh",
)
_ELSEWHERE = ("/run/secrets", "/var/run/secrets")


def is_credential(name: str, value: str) -> bool:
    """Return whether an environment variable holds a credential or says where one lies."""
    return bool(_NAME.search(name) or _ADDRESS.search(value))


def harmless(variables: Mapping[str, str]) -> dict[str, str]:
    """Return the environment variables that are no credentials."""
    return {name: value for name, value in variables.items() if not is_credential(name, value)}


def credential_places(variables: Mapping[str, str]) -> tuple[Path, ...]:
    """Return the files and folders that hold credentials of this user, as far as there are any.

    Args:
        variables: Environment variables, some of which may name such files.
    """
    values = (Path(value) for name, value in variables.items() if is_credential(name, value))
    named = [place for place in values if place.is_absolute()]
    home = Path.home()
    places = [*named, *(home / name for name in _AT_HOME), *map(Path, _ELSEWHERE)]
    # A variable may name a folder that holds much more than credentials.
    return tuple(place for place in dict.fromkeys(places) if place not in (home, Path("/")) and is_there(place))


def is_there(path: Path) -> bool:
    """Return whether a path leads to something, also if it only looks like one, as a key that begins with a slash."""
    try:
        return path.exists()
    except (OSError, ValueError):
        return False
