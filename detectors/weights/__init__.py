"""The weights that come with the package; see README.md beside this file for what they are."""
