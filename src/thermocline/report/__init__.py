"""Counters, for people to read."""
