"""Installed plugins: made-up distributions, and those that come with the package."""

from __future__ import annotations

from pathlib import Path

from unlearnbench.registry import entry_points, identity, options, signature, syntax
from unlearnbench.registry.entry_points import PluginKind, installed


def fake_distribution(
    folder: Path, name: str, entries: dict[str, dict[str, str]], modules: dict[str, str] | None = None
) -> Path:
    """Put an installed distribution into a folder of the module search path.

    Args:
        folder: Folder to put it into, created if missing.
        name: Name of the distribution, whose version is 1.0.
        entries: Targets by name, for each kind of plugin.
        modules: Source texts by module name.
    """
    information = folder / f"{name.replace('-', '_')}-1.0.dist-info"
    information.mkdir(parents=True)
    (information / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    lines = []
    for kind, targets in entries.items():
        lines += [f"[unlearnbench.{kind}]", *(f"{key} = {target}" for key, target in targets.items())]
    (information / "entry_points.txt").write_text("\n".join(lines) + "\n")
    for module, text in (modules or {}).items():
        (folder / f"{module}.py").write_text(text)
    return folder


def built_in(kind: PluginKind) -> list[str]:
    """Return the names of the plugins in our own distribution, since others have tests of their own."""
    return [plugin.name for plugin in installed(kind) if plugin.distribution == "unlearnbench"]


def forget_plugins() -> None:
    """Forget which plugins were found, so that those of another search path are looked up."""
    for cache in (
        entry_points._found,
        syntax.module_file,
        syntax.source_module,
        identity.source_digest,
        signature.read_signature,
        options.plugin_schema,
    ):
        cache.cache_clear()
