"""The last words of a run, by which a reader of its log knows how it ended."""

RESUMES = "the same command resumes"  # of a run that was asked to stop, and has saved itself
