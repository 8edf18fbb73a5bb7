"""Demo: a page in the browser to try a network on a photograph."""
