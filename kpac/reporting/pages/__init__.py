"""Pages for a browser: results side by side, and how a training went."""
