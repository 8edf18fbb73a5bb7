"""Pages for a browser: results side by side, and curves of trainings."""
