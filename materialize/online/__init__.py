"""Packed rows in Redis, compiled read plans, and the Feast OnlineStore plug-in."""
