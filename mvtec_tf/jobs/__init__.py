"""One file a job: what a binary does, as a plain function with arguments."""
