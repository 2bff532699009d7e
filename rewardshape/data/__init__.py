"""Preference pairs: reading, checking and tokenising them, and the embedded task."""
