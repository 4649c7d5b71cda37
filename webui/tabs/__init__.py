"""One file for each tab, in the order of the work. Each has `build(app, shared)`."""
