"""Output for people: tables, charts, comparison sheets and published numbers."""
