"""Files to raw rows: what a person points at becomes a list of files (`sources`), each read by
its kind (`files` tells which, `tables`, `json_rows` and `documents` read), one record at a time."""
