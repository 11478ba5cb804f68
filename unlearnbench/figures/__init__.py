"""Figures from finished runs; all that imports matplotlib lies in this folder."""
