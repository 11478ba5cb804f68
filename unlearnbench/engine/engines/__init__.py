"""Engines, which compute functions in processes of this machine or of others."""
