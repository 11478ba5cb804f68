"""Plugins: entry points, options as a schema, declarations, identity, pages and the template of a new one."""
