"""The ground floor: errors, files, paths, progress, random numbers."""
