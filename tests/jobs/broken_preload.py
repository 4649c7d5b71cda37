"""A module that breaks the fork server that is to preload it."""

raise SystemExit("cannot begin like this")
