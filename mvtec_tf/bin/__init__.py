"""One absl binary a file: defines flags, calls the rooms, prints where the results are."""
