"""Pictures: a DataFrame in, matplotlib Axes out. Nothing here saves, shows, or changes global style."""
