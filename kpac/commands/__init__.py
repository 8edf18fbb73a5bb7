"""The subcommands of `kpac`, one file per package: only arguments are defined here, the work is done elsewhere."""
