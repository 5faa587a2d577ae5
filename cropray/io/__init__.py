"""Files and folders: storage of any kind, raw inputs, the workspace and its stamps, zones, job files.

Comes in: paths and addresses. Goes out: whole files or none, settings that were checked, and whether an artefact is
up to date. May be added: a path of the workspace (`workspace.Workspace` alone knows them).
"""
