"""The subcommands of `kpac`, a file for each room of the house: arguments here, the work elsewhere."""
