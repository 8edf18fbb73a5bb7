"""The subcommands of `kpac`: each module adds its own to the command line, and holds no logic besides."""
