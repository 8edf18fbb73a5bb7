"""Weights by name: files that come with the package or are downloaded, each with a card that says how it was made."""
