"""Federations of unlearnbench by Flower: real clients in processes of their own, and its strategies by name."""
