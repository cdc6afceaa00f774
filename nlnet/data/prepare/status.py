"""What can be wrong with a row of a manifest, as a short name. Training uses rows that are "ok"."""

MISSING = "missing"  # no file
UNREADABLE = "unreadable"  # nothing decodes
CUT_SHORT = "cut short"  # the file ends before its announced end
DAMAGED = "damaged"  # something inside the file does not decode
NOT_COPIED = "not copied"  # the original is whole, but its copy could not be written
