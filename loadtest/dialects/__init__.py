"""One module a wire dialect; its file name, with dashes, is its name in a plan."""
