"""Our measures inside other people's trainers."""
