"""Everything named that is drawn: each figure with its name, its caption, what it needs and how it is drawn."""
