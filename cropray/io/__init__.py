"""Files and folders: storage of any kind, raw inputs, the workspace and its stamps, zones, job files."""
