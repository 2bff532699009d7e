"""Our measures and our objectives inside other people's trainers."""
