//! Configuration files: reading, merging, problems with their places.
